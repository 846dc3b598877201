"""The stages of benchmarks/gpu_check.sh: one module runs them, one small module is what each of them does."""
