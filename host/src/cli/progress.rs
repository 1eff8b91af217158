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

/// What a bar counts.
#[derive(Clone, Copy, PartialEq)]
enum Count {
    /// Nothing: how much there is to do is not known.
    Nothing,
    Steps,
    Bytes,
}

impl Count {
    /// What is of any length comes last, where it is cut at the terminal's edge: a line that wraps would be left behind.
    fn style(self) -> ProgressStyle {
        let template = match self {
            Count::Nothing => "{spinner} {elapsed:>4}  {wide_msg}",
            Count::Steps => "{spinner} {elapsed:>4}  {bar:16} {pos}/{len}  {wide_msg}",
            Count::Bytes => {
                "{spinner} {elapsed:>4}  {bar:16} {binary_bytes}/{binary_total_bytes}  {wide_msg}"
            }
        };
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("█▌░")
    }
}

/// The bar's line of text: the piece of work, then what of it is done just now.
fn line_of(title: &str, what: &str) -> String {
    if what.is_empty() { title.to_owned() } else { format!("{title} · {what}") }
}

/// Shows progress of one piece of work after another.
pub struct ProgressView {
    bar: Option<ProgressBar>,
    counts: Count,
    quiet: bool,
    title: String,
    last_line: Option<Instant>,
    last_text: String,
}

impl ProgressView {
    /// A view on standard error; nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let view = Self::on((terminal && !quiet).then(|| ProgressBar::new(0)), quiet);
        if let Some(bar) = &view.bar {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = view.bar.clone();
        view
    }

    fn on(bar: Option<ProgressBar>, quiet: bool) -> Self {
        if let Some(bar) = &bar {
            bar.set_style(Count::Nothing.style());
        }
        ProgressView {
            bar,
            counts: Count::Nothing,
            quiet,
            title: String::new(),
            last_line: None,
            last_text: String::new(),
        }
    }

    /// A piece of work begins.
    pub fn begin(&mut self, title: &str) {
        self.title = title.to_owned();
        self.last_text.clear();
        if let Some(bar) = &self.bar {
            bar.reset_elapsed();
        }
        self.show(Count::Nothing, 0, 0, "");
        self.line(title);
    }

    fn show(&mut self, counts: Count, done: u64, total: u64, what: &str) {
        let Some(bar) = &self.bar else { return };
        if counts != self.counts {
            self.counts = counts;
            bar.set_style(counts.style());
        }
        bar.set_length(total);
        bar.set_position(done.min(total));
        bar.set_message(line_of(&self.title, what));
    }

    /// `done` of `total` steps of it are done.
    pub fn step(&mut self, done: u64, total: u64, what: &str) {
        if self.bar.is_some() {
            let counts = if total > 0 { Count::Steps } else { Count::Nothing };
            return self.show(counts, done, total, what);
        }
        self.sparse_line(done, total, what);
    }

    /// Progress in a log.
    fn sparse_line(&mut self, done: u64, total: u64, what: &str) {
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
                match (self.bar.is_some(), total) {
                    (true, Some(total)) => self.show(Count::Bytes, done, total, &what),
                    (true, None) => self.show(Count::Nothing, 0, 0, &what),
                    (false, _) => self.sparse_line(mib(done), total.map_or(0, mib), &format!("{what} (MiB)")),
                }
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

#[cfg(test)]
mod tests {
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A terminal that keeps the last line written to it.
    #[derive(Clone, Debug)]
    struct Screen(u16, Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            if !text.trim().is_empty() {
                *self.1.lock().unwrap() = text.to_owned();
            }
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_never_wraps_whatever_it_says() {
        let title = "[8/11] gptq 4-bit g128 act_order true_sequential damping=0.01 / compress";
        for width in [60, 80, 120] {
            for counts in [Count::Nothing, Count::Steps, Count::Bytes] {
                let screen = Screen(width, Arc::default());
                let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
                let mut view = ProgressView::on(Some(ProgressBar::with_draw_target(Some(0), target)), false);
                view.title = title.to_owned();
                view.show(counts, 7 << 20, 30 << 20, "block 7: mlp.gate_proj 46/210");
                if let Some(bar) = &view.bar {
                    bar.force_draw();
                }
                let shown = screen.1.lock().unwrap().clone();
                assert!(shown.contains("[8/"), "{width}: {shown}");
                assert!(shown.trim_end().chars().count() <= usize::from(width), "{width}: {shown}");
            }
        }
    }
}
