//! The one channel from the engine to the sinks.
//!
//! [`Events`] is what stages hold: emitting never waits. A thread of its own takes the events, masks secrets,
//! numbers them and hands them to the sinks, so a slow terminal or disk can't hold a build up. A sink that panics
//! is removed; the others go on.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use forge_console::Shot;
use forge_console::frame::Frame;
use forge_machine::ChainId;

use super::{BuildView, Envelope, Event, Redactor, VERSION};

/// How many bytes of output may wait for the sinks, beyond which lines are left out: a guest that floods must not fill the
/// memory. They are all in the step's own file.
const MOST_OUTPUT: u64 = 16 << 20;
/// What an event takes beside its text, about.
const EVENT: u64 = 256;

/// Takes events in their order.
pub trait Sink: Send {
    /// Takes one event, already masked, with the state of its build after it.
    fn take(&mut self, envelope: &Envelope, view: &BuildView);

    /// What a build's screen shows from now on, without secrets. Only live views look at it; it is in no log.
    fn screen(&mut self, _build: &ChainId, _shot: &ScreenShot) {}

    /// All builds are over; nothing comes any more.
    fn finish(&mut self) {}
}

enum Message {
    Event { build: ChainId, began: Instant, at: Instant, event: Box<Event> },
    Screen { build: ChainId, shot: Box<ScreenShot> },
    Attach(Box<dyn Sink>),
}

/// The channel with its thread. Drop the last [`Events`] first, then [`Bus::close`] it.
#[derive(Debug)]
pub struct Bus {
    sender: Sender<Message>,
    redactor: Redactor,
    thread: JoinHandle<()>,
    screens: Arc<AtomicBool>,
    /// How many bytes of output wait.
    waiting: Arc<AtomicU64>,
}

impl Bus {
    /// Starts the thread with some sinks.
    #[must_use]
    pub fn start(sinks: Vec<Box<dyn Sink>>, redactor: Redactor) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (mask, waiting) = (redactor.clone(), Arc::<AtomicU64>::default());
        let counter = Arc::clone(&waiting);
        let thread = std::thread::spawn(move || pump(&receiver, sinks, &mask, &counter));
        Self { sender, redactor, thread, screens: Arc::default(), waiting }
    }

    /// A handle for one build, whose clock begins now.
    #[must_use]
    pub fn events(&self, build: ChainId) -> Events {
        Events {
            build,
            began: Instant::now(),
            sender: self.sender.clone(),
            screens: Arc::clone(&self.screens),
            waiting: Arc::clone(&self.waiting),
            left_out: Arc::default(),
        }
    }

    /// Adds a sink for all events from now on.
    pub fn attach(&self, sink: Box<dyn Sink>) {
        // The thread only ends when all senders are gone, and this is one of them.
        let _unreachable = self.sender.send(Message::Attach(sink));
    }

    /// Has builds show their screens to the sinks while they run.
    pub fn show_screens(&self) {
        self.screens.store(true, Ordering::Relaxed);
    }

    /// The redactor that stands before all sinks.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Waits until every event was taken. Events handles that are still held keep it waiting.
    pub fn close(self) {
        drop(self.sender);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the event bus panicked");
        }
    }
}

/// Emits the events of one build. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct Events {
    build: ChainId,
    began: Instant,
    sender: Sender<Message>,
    screens: Arc<AtomicBool>,
    waiting: Arc<AtomicU64>,
    /// How many lines of output were left out since the last that was not.
    left_out: Arc<AtomicU64>,
}

/// What a build's screen shows, for live views.
#[derive(Clone, Debug)]
pub struct ScreenShot {
    /// The text, where there is some.
    pub shot: Shot,
    /// The picture, made small, where there is no text and it may be shown.
    pub picture: Option<Frame>,
}

impl Events {
    /// Whether somebody watches the screens.
    #[must_use]
    pub fn shows_screens(&self) -> bool {
        self.screens.load(Ordering::Relaxed)
    }

    /// Shows a screen to who watches. What is in it must be masked already.
    pub fn show(&self, shot: ScreenShot) {
        let message = Message::Screen { build: self.build.clone(), shot: Box::new(shot) };
        let _nobody_listens = self.sender.send(message);
    }

    /// Emits an event. Lines of output that come faster than they can be taken are left out, and how many is told.
    pub fn emit(&self, event: Event) {
        let size = size(&event);
        if size > 0 && self.waiting.load(Ordering::Relaxed) > MOST_OUTPUT {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let step = match &event {
                Event::Output { step, .. } => step.clone(),
                _ => String::new(),
            };
            let line = format!(
                "({left_out} lines are left out here: they came faster than they could be shown; the step's own file has them)"
            );
            self.send(Event::Output { step, line, stderr: true });
        }
        self.send(event);
    }

    fn send(&self, event: Event) {
        self.waiting.fetch_add(size(&event), Ordering::Relaxed);
        let message = Message::Event {
            build: self.build.clone(),
            began: self.began,
            at: Instant::now(),
            event: Box::new(event),
        };
        // Without a bus there is nobody to tell; the build goes on.
        let _nobody_listens = self.sender.send(message);
    }

    /// When the build began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The build.
    #[must_use]
    pub fn build(&self) -> &ChainId {
        &self.build
    }
}

/// What an event counts for among the output that waits.
fn size(event: &Event) -> u64 {
    match event {
        Event::Output { line, .. } => EVENT + line.len() as u64,
        _ => 0,
    }
}

fn pump(
    receiver: &Receiver<Message>,
    mut sinks: Vec<Box<dyn Sink>>,
    redactor: &Redactor,
    waiting: &AtomicU64,
) {
    let mut builds: BTreeMap<ChainId, (u64, BuildView)> = BTreeMap::new();
    while let Ok(message) = receiver.recv() {
        let (build, began, at, event) = match message {
            Message::Event { build, began, at, event } => {
                waiting.fetch_sub(size(&event), Ordering::Relaxed);
                (build, began, at, event)
            }
            Message::Screen { build, shot } => {
                sinks.retain_mut(|sink| survives(|| sink.screen(&build, &shot)));
                continue;
            }
            Message::Attach(sink) => {
                sinks.push(sink);
                continue;
            }
        };
        let (next, view) = builds.entry(build.clone()).or_insert_with(|| (0, BuildView::new(build.clone())));
        let t_ms = u64::try_from(at.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
        let envelope = Envelope { v: VERSION, build, seq: *next, t_ms, event: mask(*event, redactor) };
        *next += 1;
        view.apply(&envelope);
        sinks.retain_mut(|sink| survives(|| sink.take(&envelope, view)));
    }
    for sink in &mut sinks {
        sink.finish();
    }
}

/// Whether a sink did its work without a panic.
fn survives(work: impl FnOnce()) -> bool {
    let done = std::panic::catch_unwind(AssertUnwindSafe(work)).is_ok();
    if !done {
        tracing::error!("a sink panicked and was removed");
    }
    done
}

/// Masks an event by way of its JSON form, so that no field can be forgotten.
fn mask(event: Event, redactor: &Redactor) -> Event {
    // The one kind of which there are millions.
    if let Event::Output { step, line, stderr } = event {
        return Event::Output { step: redactor.text(&step), line: redactor.text(&line), stderr };
    }
    let Ok(value) = serde_json::to_value(&event) else { return event };
    let masked = redactor.value(value.clone());
    if masked == value { event } else { serde_json::from_value(masked).unwrap_or(Event::Unknown) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Collect(Arc<Mutex<Vec<Envelope>>>);

    impl Sink for Collect {
        fn take(&mut self, envelope: &Envelope, _view: &BuildView) {
            self.0.lock().expect("not poisoned").push(envelope.clone());
        }
    }

    struct Broken;

    impl Sink for Broken {
        fn take(&mut self, _envelope: &Envelope, _view: &BuildView) {
            std::panic::resume_unwind(Box::new("broken sink"));
        }
    }

    #[test]
    fn events_come_numbered_masked_and_whatever_another_sink_does() {
        let collect = Collect::default();
        let redactor = Redactor::default();
        redactor.add("hunter22");
        let bus = Bus::start(vec![Box::new(Broken), Box::new(collect.clone())], redactor);
        let events = bus.events(ChainId::new("CHAIN-x"));
        for line in ["one", "password is hunter22", "three"] {
            events.emit(Event::Output { step: "s".into(), line: line.into(), stderr: false });
        }
        drop(events);
        bus.close();
        let seen = collect.0.lock().expect("not poisoned");
        assert_eq!(seen.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1, 2]);
        let Event::Output { line, .. } = &seen[1].event else { unreachable!("an output") };
        assert_eq!(line, "password is ***");
    }

    #[test]
    fn lines_that_come_faster_than_they_are_taken_are_left_out_and_counted() {
        /// Takes nothing until it is let.
        struct Stuck(mpsc::Receiver<()>, Collect);
        impl Sink for Stuck {
            fn take(&mut self, envelope: &Envelope, view: &BuildView) {
                _ = self.0.recv();
                self.1.take(envelope, view);
            }
        }
        let collect = Collect::default();
        let (go, gate) = mpsc::channel();
        let bus = Bus::start(vec![Box::new(Stuck(gate, collect.clone()))], Redactor::default());
        let events = bus.events(ChainId::new("CHAIN-x"));
        let line = "x".repeat(1 << 20);
        for _ in 0..100 {
            events.emit(Event::Output { step: "s".into(), line: line.clone(), stderr: false });
        }
        events.emit(Event::ProvisionerFinished { name: "s".into(), exit: 0, took_ms: 1 });
        drop(go);
        drop(events);
        bus.close();
        let seen = collect.0.lock().expect("not poisoned");
        let lines: Vec<&str> = seen
            .iter()
            .filter_map(|envelope| match &envelope.event {
                Event::Output { line, .. } => Some(line.as_str()),
                _ => None,
            })
            .collect();
        let whole = lines.iter().filter(|shown| **shown == line).count();
        assert!((15..30).contains(&whole), "{whole} lines of a MiB wait at once");
        let told = lines.last().expect("the last line says it");
        assert!(told.starts_with(&format!("({} lines are left out here", 100 - whole)), "{told}");
        assert!(matches!(seen.last().expect("some").event, Event::ProvisionerFinished { .. }));
    }

    #[test]
    fn an_event_of_a_newer_forge_is_read_as_unknown() {
        let line = r#"{"v":1,"build":"CHAIN-x","seq":0,"t-ms":5,"event":"levitated","height":3}"#;
        let envelope: Envelope = serde_json::from_str(line).expect("readable");
        assert_eq!(envelope.event, Event::Unknown);
    }
}
