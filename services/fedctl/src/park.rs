//! `park`: the head of a lane out of its way. Whoever carries the lane does it; here it is told which one.

use fedstream_jetstream::{definitions, oldest};
use fedstream_lane::{LaneKind, Seq};
use fedstream_service::cli::Failure;
use fedstream_wire::stored::header as stored;

use crate::broker;
use crate::lanes::of_oldest;
use crate::settings;
use crate::target::{LaneName, Target};
use crate::text::{one_line, say};

/// Has the head parked, if it is this sequence; with `wait` as soon as it is.
pub async fn head(name: LaneName, sequence: Seq, wait: bool) -> Result<(), Failure> {
    let lane = name.0.clone();
    let target = Target::try_from(name).map_err(Failure::usage)?;
    let broker = broker::connect(&[definitions::queue_of_kind(lane.kind()), definitions::lanes()]).await?;
    let Some(head) = oldest::of_any(&broker, &lane).await.map_err(of_oldest)? else {
        return Err(Failure::other(format_args!("{lane} is empty: there is nothing to park")));
    };
    let id = one_line(head.headers.get(stored::ACTIVITY_ID).unwrap_or_default());
    say(format_args!("only the head of a lane is parked; that of {lane} is {} {id}", head.seq));
    if sequence < head.seq {
        return Err(Failure::other(format_args!("{sequence} has left {lane}: delivered, or parked already")));
    }
    if sequence > head.seq && !wait {
        return Err(Failure::other(format_args!(
            "{sequence} is not the head of {lane}, {} is; with --wait it is parked when its turn comes",
            head.seq
        )));
    }
    settings::park(&broker, &target, sequence.0).await?;
    let carrier = if lane.kind() == LaneKind::Inbox { "batch-sender" } else { "delivery-worker" };
    if sequence == head.seq {
        say(format_args!(
            "the {carrier} parks it when no POST has it in flight and the lane is not paused: see `fedctl parked`"
        ));
    } else {
        say(format_args!("the {carrier} parks it if it becomes the head; if it is delivered before, nothing happens"));
    }
    Ok(())
}
