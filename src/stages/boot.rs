//! Starts the build VM and drives its boot screen.

use std::sync::Arc;
use std::time::Duration;

use forge_console::keymap::{self, Layout};
use forge_console::{
    Console, Echo, KeySink, Pattern, PlayError, PlayOptions, Pressing, Region, Seen, SendKeys, TypeError,
    TypeOptions, WaitError, at_rest, boot_command, expect, expect_unattended, fatal, play, press_until,
    type_text_with,
};
use forge_machine::Machine;

use super::{Created, Running, Watch};
use crate::engine::{Cx, Effect, StageError};
use crate::event::Stage;
use crate::plan::late::LateText;
use crate::plan::{BootStep, EchoWish, Outcome, Sight, Wanted};

/// Starts the VM and carries out the boot steps.
///
/// # Errors
/// When the VM can't be started, its screen is needed and can't be had, or a step does not come true.
pub async fn boot(cx: &mut Cx, created: Created) -> Result<Running, StageError> {
    let machine = created.machine;
    cx.doing(Stage::Boot, "starting it");
    cx.effect(Effect::Start, async {
        let task = machine.submit_start().await.map_err(|error| {
            StageError::port(format!("{} could not be started", machine.reference()), error)
        })?;
        cx.wait(&task)
            .await
            .map_err(|error| StageError::port(format!("{} could not be started", machine.reference()), error))
    })
    .await?;
    let steps = cx.plan.boot.clone();
    let watch = open(cx, &machine, !steps.is_empty()).await?;
    let driven = cx.cancellable_effect(Effect::DriveScreen, drive(cx, &watch, &machine, &steps)).await;
    if let Err(error) = driven {
        watch.picture(cx, "boot failed");
        if let Some(console) = watch.console() {
            console.release_all();
        }
        return Err(watch.last_lines().into_iter().fold(error, StageError::seen));
    }
    Ok(Running { machine, watch })
}

/// Opens the screen; needed for boot steps, and only missed otherwise.
async fn open(cx: &Cx, machine: &Arc<dyn Machine>, needed: bool) -> Result<Watch, StageError> {
    let opened =
        cx.cancellable(async { Ok::<_, StageError>(Watch::open(cx, machine.clone()).await) }).await?;
    match opened {
        Ok(watch) => Ok(watch),
        Err(detail) if needed => Err(StageError::new(
            "the screen of the build VM can't be had, and boot steps need it",
        )
        .seen(detail)
        .hint("the token needs VM.Console; or let the seed be delivered without typing (`seed.delivery`)")),
        Err(detail) => {
            cx.warn(format!("no pictures of the screen: {detail}"), "");
            Ok(Watch::default())
        }
    }
}

async fn drive(
    cx: &Cx,
    watch: &Watch,
    machine: &Arc<dyn Machine>,
    steps: &[BootStep],
) -> Result<(), StageError> {
    let Some(console) = watch.console() else { return Ok(()) };
    let driver = Driver { cx, watch, console, machine };
    driver.steps(steps, "").await
}

/// Carries out boot steps.
struct Driver<'a> {
    cx: &'a Cx,
    watch: &'a Watch,
    console: &'a Console,
    machine: &'a Arc<dyn Machine>,
}

impl Driver<'_> {
    /// One after another; `prefix` is the number of the step they belong to (`3.`).
    async fn steps(&self, steps: &[BootStep], prefix: &str) -> Result<(), StageError> {
        for (index, step) in steps.iter().enumerate() {
            let number = format!("{prefix}{}", index + 1);
            // Boxed, since the outcomes of a step have steps.
            Box::pin(self.step(step, &number))
                .await
                .map_err(|error| error.seen(format!("at boot step {number} of {prefix}{}", steps.len())))?;
            self.watch.picture(self.cx, &format!("boot step {number}"));
        }
        Ok(())
    }

    async fn step(&self, step: &BootStep, number: &str) -> Result<(), StageError> {
        match step {
            BootStep::WaitFor {
                sight: Sight { wanted: Wanted::Serial(expression), .. },
                within_ms,
                or_after,
                ..
            } => self.hear(expression, Duration::from_millis(*within_ms), *or_after, number).await,
            BootStep::WaitFor { sight, within_ms, or_after, still_ms } => {
                let limit = Duration::from_millis(*within_ms);
                let seen = self.wait_for(sight, limit, *or_after, number).await?;
                if let Some(quiet) = still_ms {
                    self.still(*quiet, *within_ms).await?;
                }
                if seen {
                    self.watch.recognised();
                }
                Ok(())
            }
            BootStep::Expect { outcomes, within_ms } => self.expect(outcomes, *within_ms, number).await,
            BootStep::Until { sight, press, every_ms, within_ms } => {
                self.until(sight, press, *every_ms, *within_ms, number).await
            }
            BootStep::WaitStill { quiet_ms, within_ms } => self.still(*quiet_ms, *within_ms).await,
            BootStep::Wait { ms } => {
                let time = Duration::from_millis(*ms);
                let what = format!("waiting {} s, as the profile says", time.as_secs_f32());
                self.cx.doing(Stage::Boot, what);
                tokio::time::sleep(time).await;
                Ok(())
            }
            BootStep::Keys { keys } => self.keys(keys, number).await,
            BootStep::Type { text, echo, enter, layout } => {
                self.type_text(text, *echo, layout, number).await?;
                if *enter {
                    let keys = keys_of(self.console, self.machine);
                    keys.press(&[keymap::ENTER])
                        .await
                        .map_err(|error| StageError::caused("Enter could not be pressed", error))?;
                }
                Ok(())
            }
        }
    }

    fn pattern(&self, sight: &Sight) -> Result<Pattern, StageError> {
        let pattern = match &sight.wanted {
            Wanted::Text(text) => Pattern::text(&self.cx.bindings.resolve(text)?),
            Wanted::Regex(expression) => Pattern::regex(expression)
                .map_err(|error| StageError::caused("the plan has a broken regular expression", error))?,
            Wanted::Serial(_) => {
                return Err(StageError::new("the plan looks for the serial port's words on the screen"));
            }
            Wanted::Needle(wish) => {
                let needle = wish
                    .needle()
                    .map_err(|error| StageError::caused("the plan has a broken needle", error))?;
                Pattern::needle(&wish.name, needle, wish.tolerance())
            }
        };
        let part = |range: Option<(usize, usize)>| range.map_or(1..=usize::MAX, |(first, last)| first..=last);
        Ok(pattern.within(Region { lines: part(sight.lines), columns: part(sight.columns) }))
    }

    /// Waits for one of the patterns; a screen after which nothing comes ends the build with its name. So does a prompt at
    /// which nobody types: no step did by now, and none will while this one waits. One that goes on without its pattern may
    /// be followed by one that types there.
    async fn see(
        &self,
        patterns: &[Pattern],
        limit: Duration,
        or_after: bool,
    ) -> Result<Result<usize, WaitError>, StageError> {
        let seen = if or_after || self.watch.works_at_prompt() {
            expect(self.console, patterns, limit).await
        } else {
            expect_unattended(self.console, patterns, limit).await
        };
        match seen {
            Ok(Seen::Pattern(number)) => Ok(Ok(number)),
            Ok(Seen::Fatal(sighting)) => Err(super::screen::wrong(&sighting)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn wait_for(
        &self,
        sight: &Sight,
        limit: Duration,
        or_after: bool,
        number: &str,
    ) -> Result<bool, StageError> {
        let pattern = self.pattern(sight)?;
        self.cx.waiting(Stage::Boot, &format!("{pattern} on the screen"), "", limit);
        match self.see(std::slice::from_ref(&pattern), limit, or_after).await? {
            Ok(_) => Ok(true),
            Err(error @ WaitError::NoPattern { .. }) if or_after => {
                let message = format!(
                    "boot step {number}: {pattern} was not seen within {} s; going on",
                    limit.as_secs()
                );
                self.cx.warn(message, crate::engine::error::chain(&error));
                Ok(false)
            }
            Err(error) => Err(StageError::caused(format!("{pattern} did not come on the screen"), error)),
        }
    }

    /// Waits for a line on the serial port.
    async fn hear(
        &self,
        expression: &str,
        limit: Duration,
        or_after: bool,
        number: &str,
    ) -> Result<(), StageError> {
        let wanted = regex_lite::Regex::new(expression)
            .map_err(|error| StageError::caused("the plan has a broken regular expression", error))?;
        let what = format!("/{expression}/ on the serial port");
        self.cx.waiting(Stage::Boot, &what, "", limit);
        let Some(serial) = self.watch.serial() else {
            return Err(StageError::new("the serial port of this VM is not recorded"));
        };
        let heard = tokio::select! {
            heard = serial.wait_for(&wanted, limit) => heard,
            sighting = fatal(self.console) => return Err(super::screen::wrong(&sighting)),
        };
        match heard {
            Ok(()) => Ok(()),
            Err(last) if or_after => {
                let message =
                    format!("boot step {number}: {what} did not come within {} s; going on", limit.as_secs());
                self.cx.warn(message, format!("the last line was: {last}"));
                Ok(())
            }
            Err(last) => Err(StageError::new(format!("{what} did not come within {} s", limit.as_secs()))
                .seen(format!("the serial port: {last}"))),
        }
    }

    async fn still(&self, quiet_ms: u64, within_ms: u64) -> Result<(), StageError> {
        let limit = Duration::from_millis(within_ms);
        self.cx.waiting(Stage::Boot, "a screen that stands still", "", limit);
        match at_rest(self.console, Duration::from_millis(quiet_ms), limit).await {
            Ok(None) => Ok(()),
            Ok(Some(sighting)) => Err(super::screen::wrong(&sighting)),
            Err(error) => Err(StageError::caused("the screen did not come to rest", error)),
        }
    }

    async fn expect(&self, outcomes: &[Outcome], within_ms: u64, number: &str) -> Result<(), StageError> {
        let limit = Duration::from_millis(within_ms);
        let deadline = tokio::time::Instant::now() + limit;
        let patterns =
            outcomes.iter().map(|outcome| self.pattern(&outcome.sight)).collect::<Result<Vec<_>, _>>()?;
        let what = patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join(" or ");
        loop {
            self.cx.waiting(Stage::Boot, &format!("{what} on the screen"), "", limit);
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let found = self
                .see(&patterns, left, false)
                .await?
                .map_err(|error| StageError::caused("nothing that was expected came on the screen", error))?;
            let Some((outcome, pattern)) = outcomes.get(found).zip(patterns.get(found)) else {
                return Ok(());
            };
            self.cx.doing(Stage::Boot, format!("{pattern} is on the screen"));
            if let Some(reason) = &outcome.fail {
                return Err(StageError::new(reason.clone()).seen(format!("{pattern} on the screen")));
            }
            self.steps(&outcome.steps, &format!("{number}.")).await?;
            if !outcome.again {
                return Ok(());
            }
            // What stands there already would be found however late it is.
            if tokio::time::Instant::now() >= deadline {
                let what = format!("{pattern} came again and again for {} s", limit.as_secs());
                return Err(StageError::new(what).hint("its steps do not help, or `within` is too short"));
            }
        }
    }

    async fn until(
        &self,
        sight: &Sight,
        press: &LateText,
        every_ms: u64,
        within_ms: u64,
        number: &str,
    ) -> Result<(), StageError> {
        let pattern = self.pattern(sight)?;
        let (every, limit) = (Duration::from_millis(every_ms), Duration::from_millis(within_ms));
        self.cx.waiting(Stage::Boot, &format!("{pattern} on the screen, pressing {press}"), "", limit);
        let key = || -> Pressing<'_, Unpressed> {
            Box::pin(async { self.keys(press, number).await.map_err(Unpressed::Key) })
        };
        match press_until(self.console, &pattern, every, limit, key).await {
            Ok(Seen::Pattern(_)) => Ok(()),
            Ok(Seen::Fatal(sighting)) => Err(super::screen::wrong(&sighting)),
            Err(Unpressed::Key(error)) => Err(error),
            Err(Unpressed::Wait(error)) => {
                let what = format!("{pattern} did not come on the screen, however often {press} was pressed");
                Err(StageError::caused(what, error))
            }
        }
    }

    async fn keys(&self, keys: &LateText, number: &str) -> Result<(), StageError> {
        let text = self.cx.bindings.resolve(keys)?;
        self.cx.doing(Stage::Boot, format!("pressing {text}"));
        self.watch.typing(&text);
        self.watch.works_here();
        let actions = boot_command::parse(&text).map_err(|mistakes| {
            let first = StageError::new(format!("the keys of boot step {number} make no sense"));
            mistakes.iter().fold(first, |error, mistake| error.seen(mistake.to_string()))
        })?;
        let sink = keys_of(self.console, self.machine);
        let mut options = PlayOptions::default();
        if self.console.failure().is_some() {
            options.typing.echo = Echo::None;
        }
        play(self.console, sink.as_ref(), &actions, &options).await.map_err(|error| match error {
            PlayError::Fatal { sighting, .. } => super::screen::wrong(&sighting),
            error => StageError::caused(format!("boot step {number} could not be carried out"), error),
        })?;
        // Packer's language waits for screens between its keys.
        self.watch.works_here();
        Ok(())
    }

    async fn type_text(
        &self,
        text: &LateText,
        echo: EchoWish,
        layout: &str,
        number: &str,
    ) -> Result<(), StageError> {
        let text = self.cx.bindings.resolve(text)?;
        let length = text.chars().count();
        self.watch.typing(&text);
        self.watch.works_here();
        let echo = match echo {
            EchoWish::Required => Echo::Required,
            EchoWish::IfSeen if self.console.failure().is_some() => Echo::None,
            EchoWish::IfSeen => Echo::IfSeen,
            EchoWish::None => Echo::None,
        };
        let how = if echo == Echo::None { "blind and slowly" } else { "and reading them back" };
        self.cx.doing(Stage::Boot, format!("typing {length} characters {how}"));
        let layout = Layout::by_name(layout).unwrap_or_default();
        let options = TypeOptions { echo, layout, ..TypeOptions::default() };
        let keys = keys_of(self.console, self.machine);
        let report = type_text_with(self.console, keys.as_ref(), &text, &options).await.map_err(untyped)?;
        if report.corrections > 0 {
            let message =
                format!("boot step {number} was typed wrong and corrected {} times", report.corrections);
            self.cx.warn(message, "");
        }
        if !report.verified {
            let why = match echo {
                Echo::None if self.console.failure().is_some() => "the display is lost",
                Echo::None => "as the profile says",
                _ if report.prompt_hides => "the prompt asks for something that it does not show",
                _ => "nothing of it can be read on the screen",
            };
            self.cx.warn(format!("boot step {number} was typed blind: {why}"), "");
        }
        Ok(())
    }
}

/// Why a key was not pressed until something came.
enum Unpressed {
    Key(StageError),
    Wait(WaitError),
}

impl From<WaitError> for Unpressed {
    fn from(error: WaitError) -> Self {
        Self::Wait(error)
    }
}

/// Why a text was not typed, with what helps where the keyboard's layout is what was wrong.
fn untyped(error: TypeError) -> StageError {
    let layout = match &error {
        TypeError::Mismatch { layouts, .. } => layouts.first().map(|layout| layout.name()),
        _ => None,
    };
    let failure = StageError::caused("the text could not be typed", error);
    match layout {
        Some(name) => failure.hint(format!("say `layout = \"{name}\"` at this boot step")),
        None => failure,
    }
}

/// Keys go over the display; when its connection is lost, by the target's own key call.
fn keys_of(console: &Console, machine: &Arc<dyn Machine>) -> Box<dyn KeySink> {
    match console.failure() {
        None => Box::new(console.clone()),
        Some(error) => {
            tracing::debug!(%error, "falling back to the target's key call");
            Box::new(SendKeys::new(machine.clone()))
        }
    }
}
