"""Kernels of the Triton backend. Importing a module of kernels imports triton; nothing here needs a GPU."""
