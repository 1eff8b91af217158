//! What goes on, on standard error: a bar where a person watches, sparse lines where a log is written.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// The bar on the screen, if any: whoever writes to standard error must lift it out of the way.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Time between two lines about the same piece of work in a log.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Runs `write`, which writes to standard error, with the bar out of the way.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Shows progress of one piece of work after another.
pub struct ProgressView {
    bar: Option<ProgressBar>,
    quiet: bool,
    title: String,
    last_line: Option<Instant>,
    last_text: String,
}

impl ProgressView {
    /// A view on standard error; nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{spinner} {prefix}  {wide_bar} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar.clone();
        ProgressView { bar, quiet, title: String::new(), last_line: None, last_text: String::new() }
    }

    /// A piece of work begins.
    pub fn begin(&mut self, title: &str) {
        self.title = title.to_owned();
        self.last_text.clear();
        if let Some(bar) = &self.bar {
            bar.set_prefix(title.to_owned());
            bar.set_message("");
            bar.set_length(0);
            bar.set_position(0);
        }
        self.line(title);
    }

    /// `done` of `total` steps of it are done.
    pub fn step(&mut self, done: u64, total: u64, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(what.to_owned());
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        let count = if total > 0 { format!(" {done}/{total}") } else { String::new() };
        let text = format!("{}:{count} {what}", self.title);
        if due && text != self.last_text {
            self.line(&text);
            self.last_text = text;
        }
    }

    /// A line that stays, bar or not.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            output::say(text);
            self.last_line = Some(Instant::now());
        }
    }

    /// A line that only a log needs: the bar says it otherwise.
    fn line(&mut self, text: &str) {
        if self.bar.is_none() && !self.quiet {
            output::say(text);
            self.last_line = Some(Instant::now());
        }
    }

    /// What an asset store tells while it fetches.
    pub fn fetch(&mut self, progress: crate::assets::Progress) {
        match progress {
            crate::assets::Progress::Message(text) => self.note(&text),
            crate::assets::Progress::Bytes { what, done, total } => {
                let mib = |n: u64| n / (1 << 20);
                self.step(mib(done), total.map_or(0, mib), &format!("{what} (MiB)"));
            }
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
