/// What was wrong with the input of one of this crate's functions.
///
/// The messages name the option or operand; the caller knows which tensor it was and should add that.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KitError {
    /// An operand does not have the number of elements its shape asks for.
    #[error("{operand} has {found} elements, but its shape asks for {expected}")]
    Length {
        /// Which operand.
        operand: &'static str,
        /// Elements that its shape asks for.
        expected: usize,
        /// Elements it has.
        found: usize,
    },
    /// A matrix without rows or columns, or with more elements than memory can address.
    #[error("{operand} has the shape [{rows}, {cols}], which is empty or too large")]
    Shape {
        /// Which operand.
        operand: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
    },
    /// A value that is NaN, infinite, or so large that arithmetic on it overflows.
    #[error("{operand} holds {value} at row {row}, column {col}; repair or exclude this tensor")]
    NotFinite {
        /// Which operand.
        operand: &'static str,
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        col: usize,
        /// The value.
        value: f64,
    },
    /// An option outside its range.
    #[error("{option} = {value} is out of range: {allowed}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The Gram matrix is not one: asymmetric, or with a negative diagonal.
    #[error("the Gram matrix is not symmetric positive semi-definite: {reason}")]
    Gram {
        /// What gives it away.
        reason: String,
    },
    /// No Cholesky factor, even with the largest damping tried.
    #[error(
        "the Hessian is not positive definite even with damping {damping} of its mean diagonal; use more or more varied calibration data"
    )]
    NotPositiveDefinite {
        /// The largest damping tried, as a fraction of the mean diagonal.
        damping: f64,
    },
    /// The error feedback of a solver overflowed.
    #[error("the solver's error feedback overflowed; raise the damping (now {damping} of the mean diagonal)")]
    Diverged {
        /// The damping of the factor that was used.
        damping: f64,
    },
    /// A number of rows or columns that a layout or a pattern cannot divide.
    #[error(
        "{what} of {size} cannot be divided into {unit}s of {multiple}; choose another setting for this tensor"
    )]
    Indivisible {
        /// What was to be divided.
        what: &'static str,
        /// Its size.
        size: usize,
        /// What it was to be divided into.
        unit: &'static str,
        /// The size of one of those.
        multiple: usize,
    },
}

impl KitError {
    pub(crate) fn option(option: &'static str, value: impl std::fmt::Display, allowed: &'static str) -> Self {
        Self::Option { option, value: value.to_string(), allowed }
    }
}
