"""A CUDA device without a GPU: Warp's PTX, run by NumPy, a launch's threads side by side.

Warp compiles kernels for sm_90 as it would for an H100, and all of Warp and of the package that
deals with a CUDA device runs as it is: allocations, copies, streams, graphs, launches. What is
replaced is the driver below Warp (``driver``), whose memory is the host's.

What it proves: what the compiled kernels compute, tensor-core instructions and shuffles included;
that they read and write nothing outside of an allocation, nor across an alignment; that the lanes
of a warp meet where an instruction asks all of them to. What it does not: any time, the order of
threads on a GPU (races that its own order does not show), the bits of approximate instructions
(``ex2.approx`` is exact here), and ptxas, which turns PTX into machine code.

``text`` and ``variables`` read PTX; ``arithmetic``, ``rounding`` and ``conversions`` have what
instructions compute, ``memory`` the address spaces; ``instructions``, ``accesses`` and ``warps``
turn each instruction into a function on all threads, ``program`` a kernel into pieces of them;
``machine`` runs threads, ``races`` looks for races,
``traffic`` counts instructions and sectors of memory. ``driver`` stands in for CUDA's, upon
``launches``, ``allocations`` and ``graphs``. What is not emulated is refused, with the instruction.

Source: the PTX ISA (its semantics; none of its text).
"""
