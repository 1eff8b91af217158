//! One page of HTML that needs nothing else: styles, scripts and data are inside it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::columns::headline;
use super::grid::Named;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/style.css");
/// In the order in which they need each other.
const SCRIPTS: &[&str] = &[
    include_str!("html/script/dom.js"),
    include_str!("html/script/format.js"),
    include_str!("html/script/data.js"),
    include_str!("html/script/columns.js"),
    include_str!("html/script/chart.js"),
    include_str!("html/script/header.js"),
    include_str!("html/script/results.js"),
    include_str!("html/script/ranking.js"),
    include_str!("html/script/pareto.js"),
    include_str!("html/script/tasks.js"),
    include_str!("html/script/costs.js"),
    include_str!("html/script/settings.js"),
    include_str!("html/script/main.js"),
];

/// Version of the data that the page's scripts read.
const FORMAT: u32 = 1;

/// JSON that cannot end the element it stands in.
fn inside_an_element(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// The metric of each task that tables show.
fn headlines(runs: &[Named]) -> BTreeMap<&str, String> {
    let tasks = runs.iter().flat_map(|one| &one.run.suite.tasks);
    tasks.filter_map(|task| Some((task.as_str(), headline(task)?))).collect()
}

/// The page of one run, or of several under each other.
#[must_use]
pub fn render(runs: &[Named]) -> String {
    let title = match runs {
        [one] if !one.name.is_empty() => one.name.clone(),
        runs => runs.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let data = json!({
        "format": FORMAT,
        "generated_by": format!("llmcb-host {}", env!("CARGO_PKG_VERSION")),
        "title": title,
        "names": runs.iter().map(|one| &one.name).collect::<Vec<_>>(),
        "headlines": headlines(runs),
        "facts": runs.iter().map(|one| &one.facts).collect::<Vec<_>>(),
        "runs": runs.iter().map(|one| &one.run).collect::<Vec<_>>(),
    });
    // The data last: they might hold what looks like a place for something else.
    PAGE.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", &SCRIPTS.join("\n"), 1).replacen(
        "/*DATA*/",
        &inside_an_element(&data),
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Facts, table};

    fn page(name: &str) -> String {
        render(&[Named { name: name.to_owned(), run: table::tests::sample(), facts: Facts::default() }])
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let page = page("results");
        for place in ["/*STYLE*/", "/*SCRIPT*/", "/*DATA*/"] {
            assert!(!page.contains(place), "{place} was not filled");
        }
        let lower = page.to_lowercase();
        for outside in
            ["src=\"http", "href=\"http", "@import", "url(http", "<link rel=\"stylesheet", "<script src"]
        {
            assert!(!lower.contains(outside), "{outside}");
        }
    }

    #[test]
    fn data_cannot_end_their_element() {
        let page = page("</script><b>");
        assert!(!page.contains("</script><b>"));
        let start =
            page.find("id=\"data\">").map(|at| at + "id=\"data\">".len()).expect("an element for the data");
        let data = &page[start..start + page[start..].find("</script>").expect("its end")];
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["title"], "</script><b>");
        assert_eq!(data["runs"][0]["cells"].as_array().map(Vec::len), Some(4));
    }
}
