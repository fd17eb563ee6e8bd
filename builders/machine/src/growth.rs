//! A file that somebody reads while it is still being downloaded: how far it is, whether it began again, and whether it is
//! proved by its checksum.
//!
//! The last byte is nobody's before the whole is proved, so that what is sent on meanwhile never becomes a whole file of
//! the wrong bytes.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::watch;

/// What is known of the file.
#[derive(Debug, Default)]
struct State {
    /// The file and its size, once the source has told that.
    file: Option<(Arc<File>, u64)>,
    /// Its first bytes that are there.
    written: u64,
    /// How often it began again: what was read before is of no use then.
    round: u64,
    /// Whether the whole is there, and is what its checksum says.
    proved: bool,
    /// Whether nothing comes any more.
    ended: bool,
}

impl State {
    /// The bytes that may be read.
    fn readable(&self) -> u64 {
        match &self.file {
            Some((_, size)) if self.proved => *size,
            Some((_, size)) => self.written.min(size.saturating_sub(1)),
            None => 0,
        }
    }
}

/// A file that grows, told by who writes it.
#[derive(Clone, Debug, Default)]
pub struct Growth(Arc<watch::Sender<State>>);

impl Growth {
    /// The source has told how large the file becomes. The same size again changes nothing.
    pub fn begin(&self, file: &Arc<File>, size: u64) {
        self.0.send_if_modified(|state| {
            if state.file.as_ref().is_some_and(|(_, known)| *known == size) {
                return false;
            }
            state.round += u64::from(state.file.is_some());
            state.file = Some((Arc::clone(file), size));
            true
        });
    }

    /// So many bytes are in the file.
    pub fn reach(&self, written: u64) {
        self.0.send_modify(|state| state.written = written);
    }

    /// What is in the file is of no use; to be told before it is overwritten.
    pub fn begin_again(&self) {
        self.0.send_modify(|state| {
            *state = State { round: state.round + 1, ..State::default() };
        });
    }

    /// The whole is there, and is what its checksum says.
    pub fn prove(&self) {
        self.0.send_modify(|state| state.proved = true);
    }

    /// Nothing comes any more, whatever the reason.
    pub fn end(&self) {
        self.0.send_modify(|state| state.ended = true);
    }

    /// Somebody who reads it meanwhile.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower { state: self.0.subscribe(), seen: (0, 0) }
    }
}

/// Why a file that grew can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Its first bytes are others now.
    #[error("its download began again")]
    Again,
    /// It will never be whole.
    #[error("its download ended")]
    Ended,
}

/// One who reads a file while it grows.
#[derive(Debug)]
pub struct Follower {
    state: watch::Receiver<State>,
    /// Round and bytes when it began to be read last.
    seen: (u64, u64),
}

/// One pass over a file that grows.
#[derive(Debug)]
pub struct Pass {
    state: watch::Receiver<State>,
    round: u64,
    file: Arc<File>,
    size: u64,
}

impl Follower {
    /// Waits until the file can be read from its start, and after a pass that was broken until there is more than then;
    /// `None` when it never can. May be dropped.
    pub async fn pass(&mut self) -> Option<Pass> {
        let seen = self.seen;
        let ready = |state: &State| {
            let moved = (state.round, state.written) != seen || state.proved;
            state.file.is_some() && state.written > 0 && moved
        };
        let state = self.state.wait_for(|state| ready(state) || state.ended).await.ok()?;
        // What ended without a proof is nothing.
        let (file, size) = state.file.clone().filter(|_| ready(&state) && (state.proved || !state.ended))?;
        let round = state.round;
        drop(state);
        Some(Pass { state: self.state.clone(), round, file, size })
    }

    /// A pass was broken: the next one begins when more has come.
    pub fn broken(&mut self) {
        let state = self.state.borrow();
        self.seen = (state.round, state.written);
    }

    /// Whether the whole is there and proved.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.state.borrow().proved
    }
}

impl Pass {
    /// The size that the file will have.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file; what is read of it counts when [`Self::stands`] says so afterwards.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Waits for bytes beyond `at`; gives where they end. May be dropped.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn beyond(&mut self, at: u64) -> Result<u64, Lost> {
        let round = self.round;
        let more = |state: &State| state.readable() > at;
        let waited = self.state.wait_for(|state| state.round != round || more(state) || state.ended).await;
        let state = waited.map_err(|_nobody_writes| Lost::Ended)?;
        match (state.round == round, more(&state)) {
            (false, _) => Err(Lost::Again),
            (true, true) => Ok(state.readable()),
            (true, false) => Err(Lost::Ended),
        }
    }

    /// Whether what was read so far is still what the file begins with.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.state.borrow().round == self.round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(File::open("/dev/null").expect("there"))
    }

    #[tokio::test]
    async fn the_last_byte_is_read_only_when_the_whole_is_proved() {
        let (growth, file) = (Growth::default(), file());
        let mut follower = growth.follow();
        growth.begin(&file, 100);
        growth.reach(40);
        let mut pass = follower.pass().await.expect("it grows");
        assert_eq!((pass.size(), pass.beyond(0).await), (100, Ok(40)));
        growth.reach(100);
        assert_eq!(pass.beyond(40).await, Ok(99));
        growth.prove();
        growth.end();
        assert_eq!((pass.beyond(99).await, follower.is_proved()), (Ok(100), true));
        assert!(follower.pass().await.is_some(), "what is whole can be read again");
    }

    #[tokio::test]
    async fn what_ended_without_a_proof_or_without_a_size_is_nothing_to_read() {
        let growth = Growth::default();
        let mut follower = growth.follow();
        growth.reach(40);
        growth.end();
        assert!(follower.pass().await.is_none());
        let (growth, file) = (Growth::default(), file());
        let mut follower = growth.follow();
        growth.begin(&file, 100);
        growth.reach(100);
        let mut pass = follower.pass().await.expect("it grows");
        growth.end();
        assert_eq!(pass.beyond(99).await, Err(Lost::Ended));
        assert!(follower.pass().await.is_none());
    }

    #[tokio::test]
    async fn what_began_again_is_read_again_from_its_start() {
        let (growth, file) = (Growth::default(), file());
        let mut follower = growth.follow();
        growth.begin(&file, 100);
        growth.reach(40);
        let mut pass = follower.pass().await.expect("it grows");
        growth.begin_again();
        assert_eq!((pass.beyond(0).await, pass.stands()), (Err(Lost::Again), false));
        growth.begin(&file, 50);
        growth.reach(10);
        let mut pass = follower.pass().await.expect("it grows");
        assert_eq!((pass.size(), pass.beyond(0).await, pass.stands()), (50, Ok(10), true));
        // After a pass that was broken the next one begins with more than was there.
        follower.broken();
        let mut waiting = Box::pin(follower.pass());
        assert!(waits(&mut waiting).await);
        growth.reach(11);
        assert!(waiting.await.is_some());
    }

    /// Whether a future still waits.
    async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }
}
