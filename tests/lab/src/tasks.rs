//! Background work under a UPID, with a log that grows.
//!
//! Invariants: a task runs in its own tokio task and so goes on when the client hangs up; it ends with exactly one
//! exit status; a task that fails or is stopped runs its undo before it counts as stopped (proxmox.md §2).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::Caller;
use crate::clock::LabClock;
use crate::faults::Fault;

/// What a task's work returns: the text of its error.
pub type TaskResult = Result<(), String>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The tasks of a cluster.
#[derive(Debug)]
pub struct Tasks {
    all: Mutex<BTreeMap<u64, Arc<Task>>>,
    next: AtomicU32,
    clock: Arc<LabClock>,
    /// How long a task of a lab without guests takes; `None` where the work itself takes time.
    pace: Option<Duration>,
}

/// One task.
#[derive(Debug)]
pub struct Task {
    /// Its whole identifier.
    pub upid: String,
    /// Node it runs on.
    pub node: String,
    /// Type, such as `qmclone`.
    pub kind: String,
    /// What it works on, usually a VMID.
    pub id: String,
    /// Who started it.
    pub caller: Caller,
    pid: u32,
    pstart: u32,
    start: i64,
    end: Mutex<Option<i64>>,
    log: Mutex<Vec<String>>,
    warnings: AtomicU32,
    exit: watch::Sender<Option<String>>,
    /// How far the work is, in percent.
    progress: watch::Sender<f64>,
    stop: CancellationToken,
}

/// What a task's work writes its log into.
#[derive(Debug, Clone)]
pub struct TaskLog(Arc<Task>);

impl TaskLog {
    /// Adds a line.
    pub fn line(&self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    /// Adds a warning; a task that has one and ends well ends with `WARNINGS: n`.
    pub fn warn(&self, text: &str) {
        self.0.warn(text);
    }

    /// Says how far the work is, in percent.
    pub fn progress(&self, percent: f64) {
        self.0.progress.send_replace(percent);
    }

    /// The number of the task's process.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }
}

/// A task about to be started.
pub struct Spawn<'a> {
    /// Node in the identifier.
    pub node: &'a str,
    /// Type, such as `qmclone`.
    pub kind: &'a str,
    /// What it works on.
    pub id: String,
    /// Who starts it.
    pub caller: &'a Caller,
    /// Faults that fired at the call.
    pub faults: Vec<Fault>,
}

impl Tasks {
    /// No tasks yet. `pace` is how long one takes whose work takes no time of its own.
    pub fn new(clock: Arc<LabClock>, pace: Option<Duration>) -> Self {
        Tasks { all: Mutex::default(), next: AtomicU32::new(0x400), clock, pace }
    }

    /// Starts a task and returns its UPID; `undo` runs when the work fails or is stopped.
    pub fn spawn_with_undo<W, U>(&self, spawn: Spawn<'_>, work: impl FnOnce(TaskLog) -> W, undo: U) -> String
    where
        W: Future<Output = TaskResult> + Send + 'static,
        U: Future<Output = ()> + Send + 'static,
    {
        let number = self.next.fetch_add(7, Ordering::SeqCst);
        let start = self.clock.now();
        let ticks = 0x4_0000 + u32::try_from(self.clock.elapsed().as_millis() / 10).unwrap_or(0);
        let Spawn { node, kind, id, caller, faults } = spawn;
        let upid = format!("UPID:{node}:{number:08X}:{ticks:08X}:{start:08X}:{kind}:{id}:{}:", caller.0);
        let task = Arc::new(Task {
            upid: upid.clone(),
            node: node.to_owned(),
            kind: kind.to_owned(),
            id,
            caller: caller.clone(),
            pid: number,
            pstart: ticks,
            start,
            end: Mutex::default(),
            log: Mutex::default(),
            warnings: AtomicU32::new(0),
            exit: watch::Sender::new(None),
            progress: watch::Sender::new(0.0),
            stop: CancellationToken::new(),
        });
        self.lock().insert(u64::from(number), Arc::clone(&task));
        let work: BoxFuture<TaskResult> = Box::pin(work(TaskLog(Arc::clone(&task))));
        let pace = Pace { clock: Arc::clone(&self.clock), time: self.pace };
        tokio::spawn(run(task, faults, pace, work, Box::pin(undo)));
        upid
    }

    /// The task of a UPID.
    pub fn find(&self, upid: &str) -> Option<Arc<Task>> {
        self.lock().values().find(|task| task.upid == upid).cloned()
    }

    /// All tasks, newest first.
    pub fn all(&self) -> Vec<Arc<Task>> {
        self.lock().values().rev().cloned().collect()
    }

    /// Asks every running task to stop.
    pub fn stop_all(&self) {
        for task in self.lock().values() {
            task.stop();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Task>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the time of a task goes.
struct Pace {
    clock: Arc<LabClock>,
    time: Option<Duration>,
}

impl Pace {
    /// Lets the task of a lab without guests take its time, percent by percent.
    async fn walk(&self, task: &Task) {
        let Some(time) = self.time else { return };
        for percent in 1..=100_u32 {
            if !time.is_zero() {
                self.clock.sleep(time / 100).await;
            }
            task.progress.send_replace(f64::from(percent));
            // A fault may wait for this very percent.
            tokio::task::yield_now().await;
        }
    }
}

/// Ends when a fault lets the task fail on its way, with the text of the failure; else never.
async fn fails_on_its_way(task: &Task, faults: &[Fault]) -> String {
    for fault in faults {
        if let Fault::TaskFailAt { percent, text } = fault {
            let mut progress = task.progress.subscribe();
            // The sender lives in the task, so waiting can't fail.
            let _ = progress.wait_for(|now| now >= percent).await;
            return text.clone();
        }
    }
    std::future::pending().await
}

async fn run(
    task: Arc<Task>,
    faults: Vec<Fault>,
    pace: Pace,
    work: BoxFuture<TaskResult>,
    undo: BoxFuture<()>,
) {
    let whole = async {
        for fault in &faults {
            match fault {
                Fault::TaskHold(gate) => gate.pass().await,
                Fault::TaskTalk { lines, every } => {
                    for line in 1..=*lines {
                        pace.clock.sleep(*every).await;
                        task.push(format!("step {line} of {lines}"));
                    }
                }
                Fault::TaskHang => std::future::pending().await,
                Fault::TaskFail { text } => return Err(text.clone()),
                Fault::TaskWarn { text } => task.warn(text),
                _ => {}
            }
        }
        pace.walk(&task).await;
        work.await?;
        for fault in &faults {
            match fault {
                Fault::TaskHoldAfter(gate) => gate.pass().await,
                Fault::TaskFailAfter { text } | Fault::TaskFailAt { text, .. } => return Err(text.clone()),
                _ => {}
            }
        }
        Ok(())
    };
    let result = tokio::select! {
        biased;
        () = task.stop.cancelled() => Err("received interrupt".to_owned()),
        text = fails_on_its_way(&task, &faults) => Err(text),
        result = whole => result,
    };
    if result.is_err() {
        undo.await;
    }
    let died = faults.iter().any(|fault| matches!(fault, Fault::TaskDie));
    task.finish(if died { None } else { Some(result) }, pace.clock.now());
}

impl Task {
    fn push(&self, line: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn warn(&self, text: &str) {
        self.warnings.fetch_add(1, Ordering::SeqCst);
        self.push(format!("WARN: {text}"));
    }

    /// Writes the last line; a worker that died writes none.
    fn finish(&self, result: Option<TaskResult>, now: i64) {
        let warnings = self.warnings.load(Ordering::SeqCst);
        let exit = match result {
            None => "unexpected status".to_owned(),
            Some(Ok(())) if warnings > 0 => {
                self.push(format!("TASK WARNINGS: {warnings}"));
                format!("WARNINGS: {warnings}")
            }
            Some(Ok(())) => {
                self.push("TASK OK".to_owned());
                "OK".to_owned()
            }
            Some(Err(text)) => {
                self.push(format!("TASK ERROR: {text}"));
                text
            }
        };
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.exit.send_replace(Some(exit));
    }

    /// Asks the task to stop; it ends with `received interrupt`.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// The exit status of a task that has ended.
    pub fn exit_status(&self) -> Option<String> {
        self.exit.borrow().clone()
    }

    /// Waits for the end. Cancel-safe.
    pub async fn ended(&self) -> String {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Lines of the log from `start` on, `limit` 0 meaning all, and their total number.
    pub fn log(&self, start: usize, limit: usize) -> (Value, usize) {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = lines.iter().enumerate().skip(start).take(limit);
        (page.map(|(index, text)| json!({"n": index + 1, "t": text})).collect(), lines.len())
    }

    /// The answer of the task's `status`.
    pub fn status(&self) -> Value {
        let mut answer = self.fields();
        answer.insert("pid".to_owned(), self.pid.into());
        answer.insert("pstart".to_owned(), self.pstart.into());
        let exit = self.exit_status();
        answer.insert("status".to_owned(), if exit.is_some() { "stopped" } else { "running" }.into());
        if let Some(exit) = exit {
            answer.insert("exitstatus".to_owned(), exit.into());
        }
        Value::Object(answer)
    }

    /// The task's entry in the list of tasks.
    pub fn entry(&self) -> Value {
        let mut answer = self.fields();
        answer.insert("pid".to_owned(), self.pid.into());
        answer.insert("pstart".to_owned(), self.pstart.into());
        if let Some(exit) = self.exit_status() {
            answer.insert("status".to_owned(), exit.into());
        }
        if let Some(end) = *self.end.lock().unwrap_or_else(PoisonError::into_inner) {
            answer.insert("endtime".to_owned(), end.into());
        }
        Value::Object(answer)
    }

    /// When it was started, in seconds since 1970.
    pub fn start(&self) -> i64 {
        self.start
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("upid".to_owned(), self.upid.clone().into());
        fields.insert("node".to_owned(), self.node.clone().into());
        fields.insert("type".to_owned(), self.kind.clone().into());
        fields.insert("id".to_owned(), self.id.clone().into());
        fields.insert("starttime".to_owned(), self.start.into());
        fields.insert("user".to_owned(), self.caller.user().into());
        if let Some(token) = self.caller.token() {
            fields.insert("tokenid".to_owned(), token.into());
        }
        fields
    }
}
