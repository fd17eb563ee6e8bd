//! One thread that starts all child processes.
//!
//! `PR_SET_PDEATHSIG` fires when the parent *thread* ends, not when the process does (prctl(2)). Threads of the
//! async runtime come and go, so children that shall live as long as forge are started from this one, which ends
//! with the process only.

use std::io;
use std::sync::{OnceLock, mpsc};
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

struct Job {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts a child from the lasting thread; it belongs to the calling runtime.
///
/// A dropped call kills the child again, provided the command says `kill_on_drop`.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Option<mpsc::Sender<Job>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes is gone");
    let spawner = SPAWNER.get_or_init(start_thread).as_ref().ok_or_else(gone)?;
    let (reply, answer) = oneshot::channel();
    spawner.send(Job { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn start_thread() -> Option<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let work = move || {
        for mut job in jobs {
            let _guard = job.runtime.enter();
            let _ = job.reply.send(job.command.spawn());
        }
    };
    thread::Builder::new().name("forge-qemu-spawner".to_owned()).spawn(work).ok().map(|_| sender)
}
