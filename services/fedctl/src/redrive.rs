//! `redrive`: copies back at the end of their lanes, one after the other, in the order in which they left.
//!
//! The list is made first: what is parked again meanwhile has a later sequence and is not driven round in a circle. A lane
//! that is full, or a broker that is away, ends it: everything behind would meet the same, and in one lane overtake it.

use fedstream_jetstream::parked::{self, Filter, Parked, RedriveError};
use fedstream_jetstream::{Broker, Refused, definitions};
use fedstream_lane::Seq;
use fedstream_service::cli::Failure;

use crate::broker;
use crate::command_line::Which;
use crate::parked::{collect, reason, unreadable};
use crate::text::{one_line, say};

/// A line of progress is said after so many.
const PROGRESS_EVERY: usize = 100;

/// Puts them back, or says which.
pub async fn run(which: Which) -> Result<(), Failure> {
    let broker = broker::connect(&[definitions::parked(), definitions::inbox()]).await?;
    if which.sequences.is_empty() {
        let filter = Filter { lane: which.lane.map(|name| name.0), reason: which.reason };
        let (copies, _) = collect(&broker, &filter, Seq(1), usize::MAX).await?;
        if which.dry_run {
            copies.iter().for_each(would_go);
            say(format_args!("{} would go back", copies.len()));
            return Ok(());
        }
        return Run::of(copies.iter().map(|copy| copy.seq).collect()).go(&broker, false).await;
    }
    let mut sequences = which.sequences;
    sequences.sort();
    sequences.dedup();
    if which.dry_run { dry_run(&broker, &sequences).await } else { Run::of(sequences).go(&broker, true).await }
}

async fn dry_run(broker: &Broker, sequences: &[Seq]) -> Result<(), Failure> {
    let mut missing = 0;
    for seq in sequences {
        match parked::read(broker, *seq).await.map_err(unreadable)? {
            Some(copy) => would_go(&copy.parked),
            None => {
                missing += 1;
                eprintln!("fedctl: there is no copy {seq} in FED_PARKED");
            }
        }
    }
    say(format_args!("{} would go back", sequences.len() - missing));
    if missing == 0 { Ok(()) } else { Err(Failure::other(format_args!("{missing} would not"))) }
}

fn would_go(copy: &Parked) {
    say(format_args!("{}  {}  {}  {}", copy.seq, copy.lane, reason(copy), one_line(copy.activity_id())));
}

struct Run {
    sequences: Vec<Seq>,
    went: usize,
    refused: usize,
}

impl Run {
    fn of(sequences: Vec<Seq>) -> Self {
        Self { sequences, went: 0, refused: 0 }
    }

    async fn go(mut self, broker: &Broker, tell_each: bool) -> Result<(), Failure> {
        let total = self.sequences.len();
        let mut stopped = None;
        for seq in std::mem::take(&mut self.sequences) {
            match Box::pin(parked::redrive(broker, seq)).await {
                Ok(done) => {
                    self.went += 1;
                    if tell_each {
                        let waived = if done.waived { ", without its deadline" } else { "" };
                        say(format_args!("copy {seq} is back in {} as {}{waived}", done.lane, done.seq));
                    }
                }
                Err(error) => {
                    self.refused += 1;
                    eprintln!("fedctl: {}", one_line(&error.to_string()));
                    if stops(&error) {
                        stopped = Some(error);
                        break;
                    }
                }
            }
            let done = self.went + self.refused;
            if done.is_multiple_of(PROGRESS_EVERY) && done < total {
                say(format_args!("{done} of {total}"));
            }
        }
        say(format_args!("{} of {total} went back", self.went));
        let stay = total - self.went;
        match stopped {
            Some(error) => Err(Failure {
                code: exit_code(&error),
                line: format!(
                    "stopped: {} of {total} went back, {stay} did not; the same command goes on later",
                    self.went
                ),
            }),
            None if stay > 0 => Err(Failure::other(format_args!("{stay} of {total} did not go back"))),
            None => Ok(()),
        }
    }
}

/// Would the next one meet the same?
fn stops(error: &RedriveError) -> bool {
    match error {
        RedriveError::Refused { refused, .. } => !matches!(refused, Refused::TooLarge | Refused::DuplicateNotStored),
        RedriveError::Unavailable { .. } => true,
        _ => false,
    }
}

/// 69 where waiting may help by itself; a full lane is emptied by the instance, or by somebody.
fn exit_code(error: &RedriveError) -> u8 {
    let full =
        |refused: &Refused| matches!(refused, Refused::LaneFull | Refused::StreamFull(_) | Refused::StorageFull(_));
    match error {
        RedriveError::Refused { refused, .. } if full(refused) => 1,
        _ => fedstream_service::cli::UNAVAILABLE,
    }
}
