//! `park`: the head of a lane out of its way. The batch-sender does it; here it is told which one.

use fedstream_jetstream::{definitions, oldest};
use fedstream_lane::Seq;
use fedstream_service::cli::Failure;
use fedstream_wire::stored::header as stored;

use crate::broker;
use crate::lanes::of_oldest;
use crate::settings;
use crate::target::{LaneName, Target};
use crate::text::{one_line, say};

/// Has the head parked, if it is this sequence; with `wait` as soon as it is.
pub async fn head(LaneName(lane): LaneName, sequence: Seq, wait: bool) -> Result<(), Failure> {
    let broker = broker::connect(&[definitions::inbox(), definitions::lanes()]).await?;
    let Some(head) = oldest::of(&broker, &lane).await.map_err(of_oldest)? else {
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
    settings::park(&broker, &Target(fedstream_jetstream::lane_settings::Key::Lane(lane.clone())), sequence.0).await?;
    if sequence == head.seq {
        say("the batch-sender parks it when no POST has it in flight and the lane is not paused: see `fedctl parked`");
    } else {
        say("the batch-sender parks it if it becomes the head; if it is delivered before, nothing happens");
    }
    Ok(())
}
