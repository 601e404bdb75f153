"""The six register tiles that do all multiplications: sums of products that never leave the registers.

Each has M rows and V vectors of columns; tuples whose lengths are M, or A, and V say how large a tile is: types reach
the compiler, values do not. `products` has those of many channels, `filters` those of one, or of another in each lane.
"""
