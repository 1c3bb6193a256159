//! One line on a terminal while a program runs.
//!
//! Input: the engine. Output: text where messages go, renewed in place. It is not shown where the program itself may
//! draw: that decides who makes a [`Live`].

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::messages::Messages;

const PERIOD: Duration = Duration::from_millis(250);

/// The line, if there is one.
#[derive(Debug)]
pub(crate) struct Live {
    messages: Option<Messages>,
    shown: Option<Instant>,
}

impl Live {
    pub(crate) const fn new(messages: Option<Messages>) -> Self {
        Self { messages, shown: None }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.messages.is_some()
    }

    pub(crate) fn show(&mut self, engine: &Engine) {
        let is_recent = self.shown.is_some_and(|shown| shown.elapsed() < PERIOD);
        let Some(messages) = self.messages.as_ref().filter(|_| !is_recent) else { return };
        self.shown = Some(Instant::now());
        let text = format!(
            "chestnut: {} calls seen, {} different; {} processes, {} now",
            engine.recorder.stops,
            engine.recorder.entries().len(),
            engine.tree.seen,
            engine.tree.processes.len(),
        );
        messages.say(format_args!("\r\x1b[K{text}"));
    }

    pub(crate) fn clear(&mut self) {
        if let (Some(messages), Some(_)) = (&self.messages, self.shown.take()) {
            messages.say(format_args!("\r\x1b[K"));
        }
    }
}
