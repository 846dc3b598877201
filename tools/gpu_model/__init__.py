"""Reads compiled GPU code and says what it costs, modelled: no GPU is needed, and nothing is measured.

    sass       the disassembly: instructions and the pipes that execute them
    flow       the loops of a kernel, the shortest and the longest way through it
    specs      what is published about four GPUs; what the textbook formula moves through their memory
    cost       the loops that run together, what a row costs in them, and what bounds it on a GPU
    launch     how the CUDA backend would launch a kernel there
    duration   how long such a launch takes, in closed form
    schedule   a simulation of a scheduler, which gives the closed form its two constants
    kernels    tables of single kernels
    calls      the table of whole calls: forward, backward and reduce
    bound      the least time of the kernels that are installed; benchmarks/quantize_bench.py prints it
    output     tables as text, in Markdown and as CSV
    program    the program around all of it: python tools/gpu_model

It imports nothing but the standard library. The CUDA backend's choices are read from its geometry.py.
"""
