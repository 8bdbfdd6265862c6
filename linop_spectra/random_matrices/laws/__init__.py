"""Laws: limits of the eigenvalues of large random matrices."""
