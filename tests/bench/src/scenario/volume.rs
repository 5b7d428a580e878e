//! Bytes over the line for each activity, from a filled lane: against the requests as the source sent them.

use std::time::Duration;

use crate::activity::Mix;
use crate::flow;
use crate::link::Line;
use crate::request::prepare;
use crate::results::LineBytes;
use crate::rig::{Rig, Settings};
use crate::scenario::OCEAN;

/// So many of each mix.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(activities: usize, settings: &Settings) -> anyhow::Result<Vec<LineBytes>> {
    let mut rig = Rig::start(1, settings).await?;
    rig.set_line(Line::of(OCEAN));
    rig.instance.set_service_time(Duration::from_millis(1));
    let mut all = Vec::new();
    for (mix, name) in [(Mix::Usual, "usual mix"), (Mix::Votes, "votes only"), (Mix::Comments, "comments only")] {
        let loads = prepare(&rig.keys, 1, activities, mix)?;
        let outcome = flow::backlog(&mut rig, &loads).await?;
        let bytes = LineBytes { mix: name.to_owned(), activities, raw: outcome.raw_bytes, line: outcome.line_bytes };
        eprintln!(
            "  {name}: {:.0} bytes raw, {:.0} over the line",
            bytes.raw as f64 / activities as f64,
            bytes.line[0] as f64 / activities as f64
        );
        all.push(bytes);
    }
    Ok(all)
}
