"""Convolution by transformed tiles whose elements are multiplied as matrices over the channels.

The rooms of `winograd`, `winograd_large` and `fft_tiles`: `choice` weighs tiles and their costs, `kernels` gather,
multiply and store; `winograd/` and `fourier` hold the transforms.
"""
