//! A lane's entry that carries a process' own session, and that none of its tasks knows of.

use fedstream_jetstream::{Broker, Leases, Taken};
use fedstream_lane::{Epoch, LaneName, OutboxLane};
use fedstream_tests::eventually::eventually;

use crate::process::{PATIENCE, Process, within};
use crate::remote::{Remote, Verdict, Visit};
use crate::{lane, start, store_all, texts};

/// What the broker stores where a process takes a lane, and never hears of it: the entry of another lane that it holds, under
/// this one's key, and as lasting.
async fn orphan(broker: &Broker, held: &OutboxLane, lane: &OutboxLane) {
    let subject = |lane: &OutboxLane| format!("$KV.fed_leases.{}", lane.key());
    let stream = broker.context().get_stream("KV_fed_leases").await.expect("the bucket");
    let entry = stream.get_last_raw_message_by_subject(&subject(held)).await.expect("it is held");
    let lasts = entry.headers.get("Nats-TTL").map(|ttl| ttl.as_str() == "never");
    assert_eq!(lasts, Some(true), "else it would be free by itself");
    let stored = broker.context().publish_with_headers(subject(lane), entry.headers, entry.payload).await;
    stored.expect("sent").await.expect("stored");
}

#[tokio::test]
async fn a_lane_that_a_process_took_without_knowing_is_free_for_others_in_the_end_and_what_it_carries_stays_its_own() {
    let (server, broker) = start().await;
    let (carried, unknown) = (lane(0), lane(1));
    let remote = Remote::new(|_| Verdict::NeverAnswers);
    let _process = Process::start(&server.url(), "one", &remote).await;
    store_all(&broker, &carried, &texts(1)).await;
    let mut visits = remote.visits.subscribe();
    let asked = visits.wait_for(|visits: &Vec<Visit>| !visits.is_empty());
    let epoch = within("it is carried", asked).await.expect("the remote lives")[0].epoch;
    orphan(&broker, &carried, &unknown).await;

    let other = Leases::open(&broker).await.expect("the bucket");
    let taken = eventually("it is free", PATIENCE, async || {
        match other.take(&unknown.key(), "two", Epoch(0)).await.expect("an answer") {
            Taken::Ours(lease) => Some(lease),
            Taken::Held { .. } => None,
        }
    });
    assert!(taken.await.expect("it is given back").epoch > epoch);
    let held = other.take(&carried.key(), "two", Epoch(0)).await.expect("an answer");
    assert!(matches!(&held, Taken::Held { epoch: held, .. } if *held == epoch), "{held:?}");
}
