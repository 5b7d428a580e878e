//! `redrive`: copies back at the end of their lanes, one after the other, in the order in which they left.
//!
//! The list is made first: what is parked again meanwhile has a later sequence and is not driven round in a circle. A lane
//! that is full takes no more of its own: what is behind would meet the same, or overtake; other lanes go on, for one remote
//! that is dead says nothing of the others. A broker that is away ends it.

use std::collections::BTreeSet;

use fedstream_jetstream::parked::{self, Parked, RedriveError};
use fedstream_jetstream::{Broker, Refused, definitions};
use fedstream_lane::{AnyLane, LaneKind, Seq};
use fedstream_service::cli::Failure;

use crate::broker;
use crate::command_line::Which;
use crate::parked::{collect, reason, unreadable};
use crate::text::{one_line, say};

/// A line of progress is said after so many.
const PROGRESS_EVERY: usize = 100;

/// One to put back: its sequence, and what is known of it; nothing where there is no copy.
type One = (Seq, Option<Parked>);

/// Puts them back, or says which.
pub async fn run(which: Which) -> Result<(), Failure> {
    let broker = broker::connect(&[definitions::parked()]).await?;
    let tell_each = !which.sequences.is_empty();
    let copies = if tell_each {
        named(&broker, which.sequences).await?
    } else {
        let (copies, _) = collect(&broker, &which.those.of(which.lane), Seq(1), usize::MAX).await?;
        copies.into_iter().map(|copy| (copy.seq, Some(copy))).collect()
    };
    if which.dry_run {
        return dry_run(&copies);
    }
    let kinds: BTreeSet<LaneKind> = copies.iter().filter_map(|(_, copy)| Some(copy.as_ref()?.lane.kind())).collect();
    for kind in kinds {
        broker::need(&broker, definitions::queue_of_kind(kind)).await?;
    }
    Run::of(copies.len(), tell_each).go(&broker, copies).await
}

/// Those with these sequences, each once.
async fn named(broker: &Broker, mut sequences: Vec<Seq>) -> Result<Vec<One>, Failure> {
    sequences.sort();
    sequences.dedup();
    let mut copies = Vec::new();
    for seq in sequences {
        let copy = parked::read(broker, seq).await.map_err(unreadable)?;
        copies.push((seq, copy.map(|copy| copy.parked)));
    }
    Ok(copies)
}

fn dry_run(copies: &[One]) -> Result<(), Failure> {
    let mut missing = 0;
    for (seq, copy) in copies {
        match copy {
            Some(copy) => would_go(copy),
            None => {
                missing += 1;
                eprintln!("fedctl: there is no copy {seq} in FED_PARKED");
            }
        }
    }
    say(format_args!("{} would go back", copies.len() - missing));
    if missing == 0 { Ok(()) } else { Err(Failure::other(format_args!("{missing} would not"))) }
}

fn would_go(copy: &Parked) {
    say(format_args!("{}  {}  {}  {}", copy.seq, copy.lane, reason(copy), one_line(copy.activity_id())));
}

struct Run {
    total: usize,
    tell_each: bool,
    went: usize,
    full: BTreeSet<AnyLane>,
}

impl Run {
    fn of(total: usize, tell_each: bool) -> Self {
        Self { total, tell_each, went: 0, full: BTreeSet::new() }
    }

    async fn go(mut self, broker: &Broker, copies: Vec<One>) -> Result<(), Failure> {
        let total = self.total;
        let mut ended = None;
        for (done, (seq, copy)) in copies.into_iter().enumerate() {
            if done > 0 && done.is_multiple_of(PROGRESS_EVERY) {
                say(format_args!("{done} of {total}"));
            }
            let lane = copy.map(|copy| copy.lane);
            if lane.as_ref().is_some_and(|lane| self.full.contains(lane)) {
                continue;
            }
            if let Err(error) = self.one(broker, seq).await {
                eprintln!("fedctl: {}", one_line(&error.to_string()));
                match Then::after(&error) {
                    Then::GoOn => {}
                    Then::LeaveTheLane => self.full.extend(lane),
                    Then::Stop => {
                        ended = Some(error);
                        break;
                    }
                }
            }
        }
        say(format_args!("{} of {total} went back", self.went));
        self.end(ended.as_ref())
    }

    async fn one(&mut self, broker: &Broker, seq: Seq) -> Result<(), RedriveError> {
        let back = Box::pin(parked::redrive(broker, seq)).await?;
        self.went += 1;
        if self.tell_each {
            let waived = if back.waived { ", without its deadline" } else { "" };
            say(format_args!("copy {seq} is back in {} as {}{waived}", back.lane, back.seq));
        }
        Ok(())
    }

    fn end(&self, ended: Option<&RedriveError>) -> Result<(), Failure> {
        let (total, went) = (self.total, self.went);
        let stay = total - went;
        if ended.is_some() || !self.full.is_empty() {
            return Err(Failure {
                code: ended.map_or(1, exit_code),
                line: format!("stopped: {went} of {total} went back, {stay} did not; the same command goes on later"),
            });
        }
        if stay == 0 { Ok(()) } else { Err(Failure::other(format_args!("{stay} of {total} did not go back"))) }
    }
}

/// What to do after one that did not go.
enum Then {
    /// The next one may.
    GoOn,
    /// Those of its lane would not.
    LeaveTheLane,
    /// The next one would meet the same.
    Stop,
}

impl Then {
    fn after(error: &RedriveError) -> Self {
        match error {
            RedriveError::Refused { refused: Refused::LaneFull, .. } => Self::LeaveTheLane,
            RedriveError::Refused { refused: Refused::TooLarge | Refused::DuplicateNotStored, .. } => Self::GoOn,
            RedriveError::Refused { .. } | RedriveError::Unavailable { .. } => Self::Stop,
            _ => Self::GoOn,
        }
    }
}

/// 69 where waiting may help by itself; a full stream is emptied by the far side, or by somebody.
fn exit_code(error: &RedriveError) -> u8 {
    match error {
        RedriveError::Refused { refused: Refused::StreamFull(_) | Refused::StorageFull(_), .. } => 1,
        _ => fedstream_service::cli::UNAVAILABLE,
    }
}
