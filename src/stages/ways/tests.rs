use std::sync::atomic::{AtomicBool, Ordering};

use forge_machine::{Command, ExecOutcome, GuestError, OutputSink};

use super::*;

#[derive(Debug)]
struct Named(&'static str, AtomicBool);

#[async_trait]
impl Guest for Named {
    fn describe(&self) -> String {
        self.0.into()
    }
    fn host_key(&self) -> Option<String> {
        None
    }

    fn host_public_key(&self) -> Option<String> {
        None
    }
    async fn exec(&self, _: &Command, _: &mut dyn OutputSink) -> Result<ExecOutcome, GuestError> {
        Ok(ExecOutcome::Exited(0))
    }
    async fn put(&self, _: &str, _: &[u8], _: u32) -> Result<(), GuestError> {
        Ok(())
    }
    async fn get(&self, _: &str, _: u64) -> Result<Vec<u8>, GuestError> {
        Ok(Vec::new())
    }
    async fn reconnect(&self, _: Duration) -> Result<(), GuestError> {
        Ok(())
    }
    async fn close(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

fn guest(name: &'static str) -> Arc<Named> {
    Arc::new(Named(name, AtomicBool::new(false)))
}

/// A way that comes about after so many milliseconds, or fails.
fn way(ms: u64, came: Result<Arc<Named>, &'static str>) -> BoxFuture<'static, Came> {
    async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        came.map(|guest| guest as Arc<dyn Guest>).map_err(StageError::new)
    }
    .boxed()
}

fn never() -> BoxFuture<'static, Came> {
    std::future::pending().boxed()
}

async fn name_of(ways: Vec<BoxFuture<'static, Came>>, patience: Duration) -> Result<String, String> {
    match first_of(ways, patience).await {
        Ok(guest) => Ok(guest.describe()),
        Err(error) => Err(error.to_string()),
    }
}

/// Far longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_wanted_way_is_taken_when_it_comes_soon_after_a_lesser_one_which_is_closed() {
    let lesser = guest("agent");
    let ways = vec![way(300, Ok(guest("ssh"))), way(1, Ok(lesser.clone()))];
    assert_eq!(name_of(ways, LONG).await, Ok("ssh".into()));
    assert!(lesser.1.load(Ordering::Relaxed), "its folder in the guest is removed");
}

#[tokio::test]
async fn a_lesser_way_is_taken_when_the_wanted_one_fails_or_does_not_come() {
    let ways = vec![never(), way(1, Ok(guest("agent")))];
    assert_eq!(name_of(ways, Duration::from_millis(50)).await, Ok("agent".into()));
    let ways = vec![way(100, Err("refused")), way(1, Ok(guest("agent")))];
    assert_eq!(name_of(ways, LONG).await, Ok("agent".into()));
}

#[tokio::test]
async fn the_first_way_is_taken_at_once_and_when_all_fail_its_error_is_told() {
    assert_eq!(name_of(vec![way(1, Ok(guest("ssh"))), never()], LONG).await, Ok("ssh".into()));
    let ways = vec![way(50, Err("no ssh")), way(1, Err("no agent"))];
    assert_eq!(name_of(ways, LONG).await, Err("no ssh".into()));
}
