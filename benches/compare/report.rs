//! The report: tables for people, one line for programs. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use forge::ui::table::table;
use serde_json::json;

use crate::Builder;
use crate::measure::{Mark, Run};

/// A phase of a build: its name, where it begins and ends, and whether it is the guest's own.
struct Phase {
    name: &'static str,
    from: Option<Mark>,
    to: Option<Mark>,
    guest: bool,
}

const fn phase(name: &'static str, from: Option<Mark>, to: Option<Mark>, guest: bool) -> Phase {
    Phase { name, from, to, guest }
}

const PHASES: [Phase; 6] = [
    phase("start to running VM", None, Some(Mark::Runs), false),
    phase("running VM to SSH banner", Some(Mark::Runs), Some(Mark::Banner), true),
    phase("banner to first line of the script", Some(Mark::Banner), Some(Mark::First), false),
    phase("script", Some(Mark::First), Some(Mark::Last), true),
    phase("last line to power off", Some(Mark::Last), Some(Mark::Off), false),
    phase("power off to end", Some(Mark::Off), None, false),
];

impl Phase {
    /// How long it took; a mark that was missed lies at the end of the build.
    fn of(&self, run: &Run) -> Duration {
        let at = |mark: Mark| run.marks.get(&mark).copied().unwrap_or(run.wall);
        let from = self.from.map_or(Duration::ZERO, at);
        self.to.map_or(run.wall, at).saturating_sub(from)
    }
}

/// What came out of all rounds.
pub fn report(builders: &[Builder], runs: &[Run]) -> String {
    let of = |builder: Builder| runs.iter().filter(move |run| run.builder == builder);
    let walls = |builder| of(builder).map(|run| run.wall).collect::<Vec<_>>();
    let mut out = String::new();

    let rows: Vec<Vec<String>> = builders
        .iter()
        .map(|builder| {
            let walls = walls(*builder);
            let each: Vec<String> = walls.iter().map(|wall| seconds(*wall)).collect();
            vec![builder.name().to_owned(), seconds(median(&walls)), each.join(" ")]
        })
        .collect();
    out.push_str(&table(&["WALL", "MEDIAN S", "ROUNDS"], &rows));

    let header =
        |first| std::iter::once(first).chain(builders.iter().map(|each| each.name())).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = PHASES
        .iter()
        .map(|phase| {
            let guest = if phase.guest { " (guest)" } else { "" };
            let mut row = vec![format!("{}{guest}", phase.name)];
            row.extend(builders.iter().map(|builder| {
                let times: Vec<Duration> = of(*builder).map(|run| phase.of(run)).collect();
                seconds(median(&times))
            }));
            row
        })
        .collect();
    out.push('\n');
    out.push_str(&table(&header("SEEN FROM OUTSIDE, MEDIAN S"), &rows));

    weights(&mut out, builders, runs);

    let mut machine = json!({});
    for builder in builders {
        let walls: Vec<f64> = walls(*builder).iter().map(Duration::as_secs_f64).collect();
        machine[builder.name()] = json!({
            "walls": walls,
            "median": median(&self::walls(runs, *builder)).as_secs_f64(),
            "memory": most(runs, *builder, |run| run.memory),
            "image": most(runs, *builder, |run| run.image),
        });
    }
    let both = |builder| builders.contains(&builder) && builders.contains(&Builder::Forge);
    if both(Builder::Floor) {
        stages(&mut out, runs);
        for builder in builders.iter().filter(|builder| **builder != Builder::Floor) {
            let added = added(runs, *builder);
            let _infallible = writeln!(
                out,
                "\n{} adds {added:.2} s to the floor, without the guest's phases",
                builder.name()
            );
            machine[builder.name()]["added"] = json!(added);
        }
    }
    if both(Builder::Packer) {
        let ratio =
            median(&walls(Builder::Packer)).as_secs_f64() / median(&walls(Builder::Forge)).as_secs_f64();
        let _infallible = writeln!(out, "\npacker takes {ratio:.2} times as long as forge");
        machine["ratio"] = json!(ratio);
    }
    let _infallible = writeln!(out, "\nresult: {machine}");
    out
}

/// The most memory of each builder, and its smallest and largest image, in MiB.
fn weights(out: &mut String, builders: &[Builder], runs: &[Run]) {
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
    };
    let rows: Vec<Vec<String>> = builders
        .iter()
        .map(|builder| {
            let memory = most(runs, *builder, |run| run.memory);
            let images = runs.iter().filter(|run| run.builder == *builder).filter_map(|run| run.image);
            let least = images.min();
            let image = [least, most(runs, *builder, |run| run.image)].map(mib).join(" to ");
            vec![builder.name().to_owned(), mib(memory), image]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(&["MIB", "MEMORY OF THE TOOL, AT MOST", "IMAGE"], &rows));
}

fn most(runs: &[Run], builder: Builder, of: impl Fn(&Run) -> Option<u64>) -> Option<u64> {
    runs.iter().filter(|run| run.builder == builder).filter_map(of).max()
}

fn walls(runs: &[Run], builder: Builder) -> Vec<Duration> {
    runs.iter().filter(|run| run.builder == builder).map(|run| run.wall).collect()
}

/// forge's stages against the same work of the floor.
fn stages(out: &mut String, runs: &[Run]) {
    let times = |builder: Builder, name: &str| -> Option<Duration> {
        let times: Vec<Duration> = runs
            .iter()
            .filter(|run| run.builder == builder)
            .flat_map(|run| run.stages.iter().filter(|(stage, _)| stage == name).map(|(_, took)| *took))
            .collect();
        (!times.is_empty()).then(|| median(&times))
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().filter(|run| run.builder == Builder::Forge).flat_map(|run| &run.stages) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let cell = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), seconds);
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let (floor, forge) = (times(Builder::Floor, name), times(Builder::Forge, name));
            let difference =
                forge.unwrap_or_default().as_secs_f64() - floor.unwrap_or_default().as_secs_f64();
            vec![(*name).to_owned(), cell(floor), cell(forge), format!("{difference:+.2}")]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(&["STAGE, MEDIAN S", "floor", "forge", "DIFFERENCE"], &rows));
}

/// What a builder needs beyond the floor in the phases that are not the guest's.
fn added(runs: &[Run], builder: Builder) -> f64 {
    let of = |builder: Builder, phase: &Phase| {
        let times: Vec<Duration> =
            runs.iter().filter(|run| run.builder == builder).map(|run| phase.of(run)).collect();
        median(&times).as_secs_f64()
    };
    let own = PHASES.iter().filter(|phase| !phase.guest);
    own.map(|phase| of(builder, phase) - of(Builder::Floor, phase)).sum()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let middle = times.len() / 2;
    match (times.get(middle), times.get(middle.wrapping_sub(1))) {
        (Some(high), Some(low)) if times.len().is_multiple_of(2) => (*high + *low) / 2,
        (Some(only), _) => *only,
        (None, _) => Duration::ZERO,
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}
