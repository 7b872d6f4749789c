//! Matrix products of tiles, through the gemm crate.

use gemm::Parallelism;

/// A borrowed matrix: element (r, c) at `r * rows + c * cols`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `stride` elements each.
    pub(crate) fn row_major(data: &'a [f32], stride: usize) -> Matrix<'a> {
        Matrix { data, rows: stride, cols: 1 }
    }

    /// The same with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Matrix<'a> {
        Matrix { data: self.data, rows: self.cols, cols: self.rows }
    }

    fn fits(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.rows + (cols - 1) * self.cols < self.data.len()
    }
}

/// `out (m × n, rows of `stride`) = a (m × k) · b (k × n)`, added to what is there if `add`.
///
/// Serial: parallelism is over tiles, so that results do not depend on the number of threads.
#[allow(unsafe_code)]
pub(crate) fn product(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    stride: usize,
    a: Matrix<'_>,
    b: Matrix<'_>,
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride, "output of a product");
    assert!(a.fits(m, k) && b.fits(k, n), "operands of a product");
    // SAFETY: the asserts above keep every element that gemm addresses, (r, c) at
    // r * row stride + c * column stride for r, c below the sizes, inside its slice; `out` is
    // borrowed mutably, so it does not overlap the operands; its rows do not overlap (n <= stride).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.cols as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.cols as isize,
            b.rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
