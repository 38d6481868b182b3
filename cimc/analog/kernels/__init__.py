"""Vector kernels, generated as LLVM IR and compiled in memory. Everything works without them, more slowly."""
