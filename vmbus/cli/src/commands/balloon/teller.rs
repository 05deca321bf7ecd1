//! Tells events to whoever listens: JSON lines, a status line on a terminal, or plain lines; and the service manager.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_notify::NotifyState;

use super::event::Event;
use crate::context::Context;
use crate::output;

/// How events are shown to the one who started the program.
enum Style {
    Json,
    /// A status line on standard error, sentences above it.
    Line(ProgressBar),
    Plain,
    Quiet,
}

pub(super) struct Teller {
    style: Style,
    /// How often the service manager wants a sign of life, halved; `None` if it wants none.
    watchdog: Option<Duration>,
    last_sign: Option<Instant>,
}

impl Teller {
    pub(super) fn new(context: &Context) -> Self {
        let style = match (context.json, context.quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() => Style::Line(status_line()),
            _ => Style::Plain,
        };
        Self { style, watchdog: sd_notify::watchdog_enabled().map(|interval| interval / 2), last_sign: None }
    }

    pub(super) fn tell(&self, event: &Event) -> anyhow::Result<()> {
        let sentence = event.sentence();
        match &self.style {
            Style::Json => output::json_line(event)?,
            Style::Line(line) if event.is_routine() || matches!(event, Event::Waiting { .. }) => {
                line.set_message(sentence.clone());
            }
            Style::Line(line) => line.suspend(|| output::line(&sentence))?,
            Style::Plain if event.is_routine() => log::debug!("{sentence}"),
            Style::Plain => output::line(&sentence)?,
            Style::Quiet => {}
        }
        match event {
            Event::Negotiated { status_reports, .. } => {
                notify(&[NotifyState::Ready, NotifyState::Status(&sentence)]);
                // The loop turns once a second because of the reports. Without them it may sleep for hours, and is
                // well.
                if !status_reports && self.watchdog.is_some() {
                    notify(&[NotifyState::WatchdogUsec(0)]);
                }
            }
            Event::Closed | Event::Rescinded => notify(&[NotifyState::Stopping, NotifyState::Status(&sentence)]),
            _ => notify(&[NotifyState::Status(&sentence)]),
        }
        Ok(())
    }

    /// Gives a sign of life to the service manager, when one is due. The driver's loop calls it, so a loop that hangs
    /// is found out.
    pub(super) fn alive(&mut self) {
        let Some(interval) = self.watchdog else { return };
        if self.last_sign.is_none_or(|last| last.elapsed() >= interval) {
            self.last_sign = Some(Instant::now());
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Takes the status line off the terminal.
    pub(super) fn finish(&self) {
        if let Style::Line(line) = &self.style {
            line.finish_and_clear();
        }
    }
}

fn status_line() -> ProgressBar {
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is constant; where it did not parse, indicatif's own style would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        line.set_style(style);
    }
    line
}

/// Tells the service manager; without one (`NOTIFY_SOCKET` not set) it does nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager was not told: {error}");
    }
}
