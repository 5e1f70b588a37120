//! A line at the bottom of a terminal that says how many hosts are done.
//!
//! Only where standard error is a terminal; elsewhere, and in JSON, there is none.

use std::fmt;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;

/// The line, if there is one.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// No line.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// A line for so many hosts.
    pub(super) fn of(hosts: usize) -> Self {
        if hosts == 0 || !super::talk_is_terminal() {
            return Self::none();
        }
        let bar = ProgressBar::with_draw_target(
            Some(hosts as u64),
            ProgressDrawTarget::stderr_with_hz(8),
        );
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} hosts  {elapsed}") {
            bar.set_style(style);
        }
        bar.tick();
        Self(Some(bar))
    }

    /// Counts a host that is done, or that waits for the answer to the question.
    pub(super) fn hear(&self, event: &Event) {
        let Some(bar) = &self.0 else {
            return;
        };
        match event {
            Event::HostEnd { .. } => bar.inc(1),
            // What is printed from here on is for reading.
            Event::Plans(_) => bar.finish_and_clear(),
            _ => {}
        }
    }

    /// Prints without the line in between.
    pub(super) fn beside(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}
