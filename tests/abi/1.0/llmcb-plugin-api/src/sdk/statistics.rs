//! Statistics of the inputs of linears.

use abi_stable::std_types::{ROption, RString};

use super::error::Result;
use super::tensor::Tensor;
use crate::abi::engine::{AbiInputStatistics, AbiStatisticsRequest, statistic};
use crate::abi::tensor::AbiTensor;

/// Which statistics a method wants. Linears that share an input share the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatisticsRequest {
    /// Names of linears of the open block.
    pub linears: Vec<String>,
    /// Gram matrix: the sum over tokens of `x x^T`.
    pub gram: bool,
    /// Per input feature, the sum over tokens of `x^2`.
    pub sum_squares: bool,
    /// Per input feature, the largest `|x|`.
    pub abs_max: bool,
    /// Per input feature, the mean of `|x|`.
    pub abs_mean: bool,
    /// About how many rows of the input to give: every `max(1, tokens / rows)`-th, from the first token on.
    pub rows: usize,
    /// What the linears read in the dense model, instead of in the present one. For methods that
    /// [aim at dense outputs](super::Descriptor::aims_at_dense_outputs) or
    /// [read dense inputs](super::Descriptor::reads_dense_inputs); others cannot have it.
    pub dense_model: bool,
}

impl StatisticsRequest {
    /// A request for nothing yet, on the given linears.
    pub fn of<S: Into<String>>(linears: impl IntoIterator<Item = S>) -> Self {
        StatisticsRequest { linears: linears.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Asks for Gram matrices.
    pub fn gram(mut self) -> Self {
        self.gram = true;
        self
    }

    /// Asks for sums of squares.
    pub fn sum_squares(mut self) -> Self {
        self.sum_squares = true;
        self
    }

    /// Asks for absolute maxima and means.
    pub fn magnitudes(mut self) -> Self {
        self.abs_max = true;
        self.abs_mean = true;
        self
    }

    /// Asks for rows, evenly spaced over all tokens: at least `rows` where there are so many, and less than twice as many.
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows;
        self
    }

    /// Asks for what the linears read in the dense model.
    pub fn of_dense_model(mut self) -> Self {
        self.dense_model = true;
        self
    }

    pub(crate) fn to_abi(&self) -> AbiStatisticsRequest {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        AbiStatisticsRequest {
            linears: self.linears.iter().map(|l| RString::from(l.as_str())).collect(),
            kinds: flag(self.gram, statistic::GRAM)
                | flag(self.sum_squares, statistic::SUM_SQUARES)
                | flag(self.abs_max, statistic::ABS_MAX)
                | flag(self.abs_mean, statistic::ABS_MEAN)
                | flag(self.rows > 0, statistic::ROWS)
                | flag(self.dense_model, statistic::DENSE_MODEL),
            rows: self.rows as u64,
        }
    }

    pub(crate) fn from_abi(request: AbiStatisticsRequest) -> Self {
        let has = |bit: u64| request.kinds & bit != 0;
        StatisticsRequest {
            gram: has(statistic::GRAM),
            sum_squares: has(statistic::SUM_SQUARES),
            abs_max: has(statistic::ABS_MAX),
            abs_mean: has(statistic::ABS_MEAN),
            dense_model: has(statistic::DENSE_MODEL),
            rows: if has(statistic::ROWS) { request.rows as usize } else { 0 },
            linears: request.linears.into_iter().map(RString::into_string).collect(),
        }
    }
}

/// Statistics of the input of one linear over all calibration tokens; those that were asked for.
#[derive(Debug)]
pub struct InputStatistics {
    /// The linear.
    pub linear: String,
    /// Tokens seen.
    pub tokens: u64,
    /// Calibration windows seen.
    pub sequences: u64,
    /// `f32 [in, in]`.
    pub gram: Option<Tensor>,
    /// `f32 [in]`.
    pub sum_squares: Option<Tensor>,
    /// `f32 [in]`.
    pub abs_max: Option<Tensor>,
    /// `f32 [in]`.
    pub abs_mean: Option<Tensor>,
    /// `f32 [rows, in]`.
    pub rows: Option<Tensor>,
}

impl InputStatistics {
    pub(crate) fn into_abi(self) -> AbiInputStatistics {
        let to = |tensor: Option<Tensor>| ROption::from(tensor.map(Tensor::into_abi));
        AbiInputStatistics {
            linear: self.linear.into(),
            tokens: self.tokens,
            sequences: self.sequences,
            gram: to(self.gram),
            sum_squares: to(self.sum_squares),
            abs_max: to(self.abs_max),
            abs_mean: to(self.abs_mean),
            rows: to(self.rows),
        }
    }

    pub(crate) fn from_abi(statistics: AbiInputStatistics) -> Result<Self> {
        let from = |tensor: ROption<AbiTensor>| tensor.into_option().map(Tensor::from_abi).transpose();
        Ok(InputStatistics {
            linear: statistics.linear.into_string(),
            tokens: statistics.tokens,
            sequences: statistics.sequences,
            gram: from(statistics.gram)?,
            sum_squares: from(statistics.sum_squares)?,
            abs_max: from(statistics.abs_max)?,
            abs_mean: from(statistics.abs_mean)?,
            rows: from(statistics.rows)?,
        })
    }
}
