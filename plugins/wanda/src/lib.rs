//! Wanda: prunes weights by |W| times the norm of the input they meet.

use llmcb_method_kit::mask::{Sparsity, wanda, wanda_variant};
use llmcb_method_kit::plugin::{self, SparsityOptions};
use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the method.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Fraction of the weights of each output row (with `variant`: of each linear) that is set to zero. Not used with
    /// `pattern`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Semi-structured sparsity `N:M`: of every M neighbouring inputs, N weights are kept, for example `2:4`.
    /// Empty: unstructured, by `ratio`.
    #[schemars(regex(pattern = r"^([0-9]+:[0-9]+)?$"))]
    pub pattern: String,
    /// Prune each row as far as its removed scores sum up to the same share of all its scores, instead of the same
    /// number in every row; the share is searched so that the linear as a whole comes within 0.1 % of `ratio`. Not
    /// for patterns.
    pub variant: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { ratio: 0.5, pattern: String::new(), variant: false }
    }
}

/// The method.
pub struct Wanda {
    rule: Rule,
}

/// How the weights to be removed are chosen by their scores.
enum Rule {
    /// The lowest of each row, or of each group of a pattern.
    Lowest(Sparsity),
    /// The lowest of each row up to a common share of its sum.
    Variant {
        /// Fraction removed of the whole linear.
        ratio: f64,
    },
}

impl Method for Wanda {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("wanda", "Wanda", env!("CARGO_PKG_VERSION"))
            .summary("Prunes by the product of a weight's magnitude and the norm of its input.")
            .description(
                "The score of a weight is |W_ij| * ||X_j||_2, where X_j is the j-th input feature over all calibration \
                 tokens (equation 1 of the paper). In every output row, the weights with the lowest scores become \
                 zero: the given fraction of them, or with `pattern=2:4` two of every four neighbours. The remaining \
                 weights keep their values, so it needs one forward pass and no solver.\n\n\
                 With `variant`, rows may differ in how many weights they lose: every row loses its lowest scores up \
                 to the same share alpha of the row's sum, and alpha is found by bisection, from 0.4 within 0 to 0.8, \
                 until the fraction removed from the linear is within 0.001 of `ratio` or the interval below 0.001. \
                 Where that misses `ratio` by more than 0.01, the log says so.",
            )
            .citation(
                "A Simple and Effective Pruning Approach for Large Language Models",
                "Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter",
                "ICLR 2024",
                "https://arxiv.org/abs/2306.11695",
            )
            .licence(env!("CARGO_PKG_LICENSE"))
            .authors("The llmcb-host authors")
            .needs_calibration()
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        let Options { ratio, pattern, variant } = options;
        let sparsity = SparsityOptions { ratio, pattern }.sparsity()?;
        let rule = match sparsity {
            Sparsity::Unstructured { ratio } if variant => Rule::Variant { ratio },
            Sparsity::Pattern { .. } if variant => {
                return Err(Error::invalid(
                    "variant = true: a pattern leaves no choice between rows; give either variant or pattern",
                ));
            }
            _ => Rule::Lowest(sparsity),
        };
        Ok(Wanda { rule })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        let linears = block.linears().to_vec();
        // All statistics before any weight changes: the scores belong to the block as it was.
        let request = StatisticsRequest::of(linears.iter().map(|l| l.name.as_str())).sum_squares();
        let statistics = block.input_statistics(&request)?;
        for (at, linear) in linears.iter().enumerate() {
            plugin::step(block, at, linear, host)?;
            let weight = block.weight(&linear.name)?;
            let weight = weight.as_f32()?;
            let mask = statistics
                .iter()
                .find(|s| s.linear == linear.name)
                .and_then(|s| Some((s.sum_squares.as_ref()?, s.tokens)))
                .ok_or_else(|| Error::failed("the engine gave no statistics of its input"))
                .and_then(|(sums, tokens)| {
                    let tokens = tokens.max(1) as f32;
                    let mean_square: Vec<f32> = sums.as_f32()?.iter().map(|s| s / tokens).collect();
                    let matrix = plugin::matrix(&weight, linear)?;
                    Ok(match self.rule {
                        Rule::Lowest(sparsity) => wanda(matrix, &mean_square, sparsity)?,
                        Rule::Variant { ratio } => wanda_variant(matrix, &mean_square, ratio)?,
                    })
                });
            let mask = plugin::name(mask, block, linear)?;
            if let Rule::Variant { ratio } = self.rule
                && (mask.sparsity() - ratio).abs() > 0.01
            {
                let found = mask.sparsity();
                host.log(
                    LogLevel::Warning,
                    format!("block {}, {}: {found:.3} pruned instead of {ratio}", block.index(), linear.name),
                );
            }
            plugin::prune(block, linear, &weight, &mask)?;
        }
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Wanda);
