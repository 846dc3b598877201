"""What stands between the face of the CUDA backend and its kernels: geometry, arguments, launchers."""
