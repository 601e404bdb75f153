"""Short Fourier transforms of lists of complex numbers, whatever the numbers are: a CPU's vectors, a GPU's registers.

Generated for any length: Cooley and Tukey for products, mirrored sums for odd primes. Where the numbers are registers
of a kernel under compilation, calling `transform` writes the instructions.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

Pair = tuple[Any, Any]
"""A complex number as (re, im)."""


class Butterfly:
    """Arithmetic of complex numbers, given that of real ones."""

    def _real(self, name: str, *operands: Any) -> Any:
        """An operation of LLVM on real numbers: fadd, fsub, fmul, fneg."""
        raise NotImplementedError

    def _constant(self, value: float) -> Any:
        """A real constant."""
        raise NotImplementedError

    def add(self, a: Pair, b: Pair) -> Pair:
        return self._real("fadd", a[0], b[0]), self._real("fadd", a[1], b[1])

    def subtract(self, a: Pair, b: Pair) -> Pair:
        return self._real("fsub", a[0], b[0]), self._real("fsub", a[1], b[1])

    def multiply(self, a: Pair, b: Pair) -> Pair:
        products = [self._real("fmul", x, y) for x, y in ((a[0], b[0]), (a[1], b[1]), (a[0], b[1]), (a[1], b[0]))]
        return self._real("fsub", *products[:2]), self._real("fadd", *products[2:])

    def scale(self, a: Pair, factor: float) -> Pair:
        constant = self._constant(factor)
        return self._real("fmul", a[0], constant), self._real("fmul", a[1], constant)

    def negate(self, a: Pair) -> Pair:
        return self._real("fneg", a[0]), self._real("fneg", a[1])

    def conjugate(self, a: Pair) -> Pair:
        return a[0], self._real("fneg", a[1])

    def rotate(self, a: Pair, k: int, n: int) -> Pair:
        """a * exp(-2 pi i k / n): quarters cost nothing, eighths two additions and two products."""
        k %= n
        if 2 * k >= n:
            return self.negate(self.rotate(a, k - n // 2, n)) if n % 2 == 0 else self._turn(a, k, n)
        if 4 * k >= n and n % 4 == 0:
            re, im = self.rotate(a, k - n // 4, n)
            return im, self._real("fneg", re)
        if k == 0:
            return a
        if 8 * k == n:
            return self.scale((self._real("fadd", *a), self._real("fsub", a[1], a[0])), cos(pi / 4))
        return self._turn(a, k, n)

    def _turn(self, a: Pair, k: int, n: int) -> Pair:
        angle = -2 * pi * k / n
        return self.multiply(a, (self._constant(cos(angle)), self._constant(sin(angle))))

    def transform(self, x: list[Pair]) -> list[Pair]:
        """The Fourier transform of a list of complex numbers, in order."""
        n = len(x)
        if n == 1:
            return list(x)
        if n == 2:
            return [self.add(x[0], x[1]), self.subtract(x[0], x[1])]
        p = next((p for p in (4, 2, 3, 5) if n % p == 0 and n > p), 0)
        if not p and n != 4:
            return self._transform_odd_prime(x)
        p = p or 2
        q = n // p                                     # Cooley and Tukey: p-point transforms, rotations, q-point ones
        columns = [self.transform(x[j::q]) for j in range(q)]
        rows = [self.transform([self.rotate(columns[j][k], j * k, n) for j in range(q)]) for k in range(p)]
        return [rows[k % p][k // p] for k in range(n)]

    def _transform_odd_prime(self, x: list[Pair]) -> list[Pair]:
        """Sums and differences of mirrored elements halve the products."""
        n = len(x)
        half = range(1, (n + 1) // 2)
        sums = {j: self.add(x[j], x[n - j]) for j in half}
        differences = {j: self.subtract(x[j], x[n - j]) for j in half}
        out = [x[0]] * n
        for j in half:
            out[0] = self.add(out[0], sums[j])
        for k in half:
            even = x[0]
            odd = None
            for j in half:
                even = self.add(even, self.scale(sums[j], cos(2 * pi * j * k / n)))
                term = self.scale(differences[j], sin(2 * pi * j * k / n))
                odd = term if odd is None else self.add(odd, term)
            assert odd is not None
            turned = odd[1], self._real("fneg", odd[0])                                    # -i odd
            out[k], out[n - k] = self.add(even, turned), self.subtract(even, turned)
        return out
