//! The metric `@NAME@`: the probability that the model gives the right answers.
//!
//! `describe` names the fields of items that are read (`llmcb-host metrics info` lists all), `score` gets a column for each, in that order. metric.wit is
//! the whole contract. Nothing but the log can be imported: no files, network, clocks or random numbers.

wit_bindgen::generate!({ path: "metric.wit", world: "metric" });

use exports::llmcb::metric::scoring::{Column, Description, Guest, Scores};

struct Metric;

impl Guest for Metric {
    fn describe() -> Description {
        Description {
            name: "@NAME@".into(),
            summary: "mean probability of the right choice".into(),
            unit: "fraction".into(),
            higher_is_better: true,
            fields: vec!["probabilities".into(), "target".into()],
        }
    }

    fn score(columns: Vec<Column>) -> Result<Scores, String> {
        let [Column::Ragged(probabilities), Column::Indices(target)] = columns.as_slice() else {
            return Err("the columns are not those that were asked for".into());
        };
        // Choices of item i: values[offsets[i]] up to values[offsets[i + 1]].
        let of = |(first, right): (&u32, &u32)| probabilities.values[(*first + *right) as usize];
        let per_item: Vec<f64> = probabilities.offsets.iter().zip(target).map(of).collect();
        let value = per_item.iter().sum::<f64>() / per_item.len() as f64;
        // None where the metric is not the mean of anything.
        Ok(Scores { value, per_item: Some(per_item) })
    }
}

export!(Metric);
