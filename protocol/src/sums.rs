//! Sum heads and tables of block sums.
