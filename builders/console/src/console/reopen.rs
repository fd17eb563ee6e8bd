//! Opens a display again whose connection was lost, as long as its VM runs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forge_machine::{Display, DisplayStream, Machine, PortError, Power};
use tokio::time::{Instant, sleep, timeout};

use super::task::Shared;

/// How long a lost display is asked for again.
const LIMIT: Duration = Duration::from_secs(30);
/// The pause before each try; a VM that was stopped has ended by then.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(10);

/// Where a display is had from.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// The display anew; `None` when there is none any more, since its VM does not run.
    async fn again(&self) -> Option<Result<Display, PortError>>;
}

/// A VM's display.
pub(crate) struct OfMachine(pub(crate) Arc<dyn Machine>);

#[async_trait]
impl Source for OfMachine {
    async fn again(&self) -> Option<Result<Display, PortError>> {
        match self.0.state().await {
            Ok(state) if state.power == Power::Stopped => None,
            Err(PortError::NotFound { .. }) => None,
            Err(error) => Some(Err(error)),
            Ok(_) => Some(self.0.display().await),
        }
    }
}

/// Opens the display anew; `None` when it can't be had any more, or nobody wants it.
pub(super) async fn reopen(shared: &Shared, source: &dyn Source) -> Option<Box<dyn DisplayStream>> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        sleep(PAUSE).await;
        if shared.is_closing() {
            return None;
        }
        match timeout(TRY_LIMIT, source.again()).await {
            Ok(None) => return None,
            Ok(Some(Ok(display))) => {
                shared.renew(display.password.as_deref()).ok()?;
                tracing::info!("the display was lost and is open again");
                return Some(display.stream);
            }
            Ok(Some(Err(error))) => tracing::debug!(%error, "the lost display can't be had yet"),
            Err(_elapsed) => tracing::debug!("the lost display was not given in time"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::console::{Console, ConsoleError, lock};
    use crate::keys::KeySink as _;
    use crate::testing::{Guest, Shared as SharedGuest, serve};
    use crate::typist::{TypeOptions, type_text};

    /// Shows a guest over connections that are cut when they have carried so many bytes to the client; the last is not.
    struct Cut {
        guest: SharedGuest,
        after: Mutex<Vec<u64>>,
    }

    impl Cut {
        fn display(&self) -> Display {
            let (ours, theirs) = duplex(64 * 1024);
            let (client, server) = duplex(64 * 1024);
            tokio::spawn(serve(theirs, Arc::clone(&self.guest)));
            let limit = lock(&self.after).pop();
            tokio::spawn(async move {
                let (from_server, mut to_server) = tokio::io::split(ours);
                let (mut from_client, mut to_client) = tokio::io::split(server);
                let mut from_server = from_server.take(limit.unwrap_or(u64::MAX));
                tokio::select! {
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
                _ = to_client.shutdown().await;
            });
            Display { stream: Box::new(client), password: None }
        }
    }

    #[async_trait]
    impl Source for Cut {
        async fn again(&self) -> Option<Result<Display, PortError>> {
            let runs = !lock(&self.guest).lines.is_empty();
            runs.then(|| Ok(self.display()))
        }
    }

    async fn console(after: Vec<u64>) -> (Console, SharedGuest) {
        let guest = Arc::new(Mutex::new(Guest::with_prompt("boot: ")));
        let source = Arc::new(Cut { guest: Arc::clone(&guest), after: Mutex::new(after) });
        let first = source.display();
        (Console::start(first, Some(source)).await.unwrap(), guest)
    }

    /// A picture of 720x400 pixels has 1,152,000 bytes, a line of it 46,080.
    #[tokio::test(start_paused = true)]
    async fn a_line_is_typed_whole_over_a_display_that_is_lost_twice() {
        let (console, guest) = console(vec![1_500_000, 1_300_000]).await;
        let report = type_text(&console, "linux quiet console=ttyS0", &TypeOptions::default()).await.unwrap();
        assert!(report.verified);
        assert_eq!(lock(&guest).lines[2], "boot: linux quiet console=ttyS0");
        assert!(console.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_pressed_while_there_is_no_display_is_not_lost() {
        let (console, guest) = console(vec![1_153_000]).await;
        // Its echo is more than the first connection carries.
        console.press(&[crate::keymap::us('a').unwrap()]).await.unwrap();
        let lost = || console.handle.shared.is_interrupted();
        while !lost() {
            sleep(Duration::from_millis(1)).await;
        }
        console.press(&[crate::keymap::us('b').unwrap()]).await.unwrap();
        console.wait_for("boot: ab", Duration::from_secs(60)).await.unwrap();
        assert_eq!(lock(&guest).keys, "ab");
    }

    #[tokio::test(start_paused = true)]
    async fn the_display_of_a_vm_that_stopped_stays_lost_and_its_last_picture_can_be_read() {
        let (console, guest) = console(Vec::new()).await;
        lock(&guest).lines.clear();
        let error = console.wait_for("never", Duration::from_secs(60)).await.unwrap_err();
        assert!(
            error.to_string().starts_with("the screen was lost while waiting; it showed\n| SeaBIOS"),
            "{error}"
        );
        assert!(matches!(console.failure(), Some(ConsoleError::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_display_that_shows_nothing_any_more_is_given_up() {
        let (console, _guest) = console(vec![9, 9, 9, 9, 9, 1_170_000]).await;
        // Its echo does not come through whole.
        console.press(&[crate::keymap::us('a').unwrap()]).await.unwrap();
        let error = console.wait_for("never", Duration::from_secs(600)).await.unwrap_err();
        assert!(error.to_string().starts_with("the screen was lost"), "{error}");
    }

    /// Gives a display that shows its guest, and from then on such that say nothing; all of them stay open.
    struct Mute(Mutex<Vec<tokio::io::DuplexStream>>);

    #[async_trait]
    impl Source for Mute {
        async fn again(&self) -> Option<Result<Display, PortError>> {
            let (ours, theirs) = duplex(64);
            lock(&self.0).push(theirs);
            Some(Ok(Display { stream: Box::new(ours), password: None }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn displays_that_stay_silent_are_given_up_and_the_last_picture_and_the_keys_are_not_kept_waiting() {
        let guest = Arc::new(Mutex::new(Guest::with_prompt("boot: ")));
        let cut = Cut { guest: Arc::clone(&guest), after: Mutex::new(Vec::new()) };
        let source = Arc::new(Mute(Mutex::default()));
        let console = Console::start(cut.display(), Some(source.clone())).await.unwrap();
        let (size, picture) = (console.size(), console.frame());
        lock(&guest).lines.clear();
        while lock(&source.0).is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        // The new connection has no picture yet: what was seen last is still there, in every form.
        sleep(Duration::from_millis(100)).await;
        assert!(console.handle.shared.is_interrupted());
        assert_eq!((console.size(), console.frame()), (size, picture.clone()));
        let (screen, snapshot) = console.snapshot();
        assert!(screen.contains("boot:") && snapshot == picture);
        assert!(console.png().unwrap().starts_with(b"\x89PNG"));

        let began = Instant::now();
        let pressed = console.press(&[crate::keymap::us('a').unwrap()]).await;
        assert!(pressed.is_err(), "there is nobody to press it");
        // Three in a row, 10 s each, and a pause before each.
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
        assert!(matches!(console.failure(), Some(ConsoleError::Silent { .. })), "{:?}", console.failure());
        assert_eq!((lock(&source.0).len(), console.frame()), (3, picture));
    }

    #[tokio::test(start_paused = true)]
    async fn a_display_that_shows_a_picture_may_be_quiet_afterwards_as_long_as_it_likes() {
        let (console, _guest) = console(vec![1_153_000]).await;
        console.press(&[crate::keymap::us('a').unwrap()]).await.unwrap();
        console.wait_for("boot: a", Duration::from_secs(60)).await.unwrap();
        sleep(Duration::from_secs(600)).await;
        assert!(console.failure().is_none() && console.size() == (720, 400));
    }
}
