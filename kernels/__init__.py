"""Native kernels and the executor that runs them.

`spec` lists the kernels and says what each can run, `binding` builds and runs programs of fused
operators, `layer` makes programs of one layer. The C++ sources lie beside; see README.md.
"""
