//! The worker's readiness page: a line for each of its streams.

use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::outbound::{Outbound, Outboxes, partition};
use serde_json::{Value, json};

use crate::SOON;

/// Status and page of `/readyz`.
async fn readyz(outbound: &Outbound) -> Option<(u16, Value)> {
    let page = http1::get(outbound.worker.admin(), "/readyz").await.ok()?;
    Some((page.status, page.json()))
}

/// An entry of one of the page's lists, by its name.
fn named<'p>(page: &'p Value, list: &str, name: &str) -> Option<&'p Value> {
    page[list].as_array()?.iter().find(|entry| entry["name"] == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_backfills_has_a_line_of_its_own() {
    let outboxes = Outboxes::start(1).await.unwrap();
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).start().await.unwrap();
    let is = async |name: &str, ready: bool| {
        let said = async || {
            let (status, page) = readyz(&outbound).await?;
            let check = named(&page, "checks", name)?;
            (check["ready"] == ready && (status == 200) == (page["ready"] == true)).then_some(())
        };
        eventually(format!("{name} is {ready}"), SOON, said).await.unwrap();
    };
    is("backfill", true).await;
    is("stream", true).await;
    outbound.jetstream().await.unwrap().delete_stream("FED_BACKFILL").await.unwrap();
    is("backfill", false).await;
    is("stream", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_counts_partitions_otherwise_is_seen_and_its_deliveries_arrive() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let (actor, remote) = (outbound.actor(1).unwrap(), outbound.remotes[0].addr());
    let own = partition(&actor);
    let wrong = (own + 1) % 4;
    let event = json!({
        "type": "DeliveryRequested", "inbox": format!("http://{remote}/inbox"), "activity": { "id": "x", "type": "Like" },
        "signing_actor_id": actor,
    });
    let subject = format!("fed.outbox.127_0_0_1=3A{}.{wrong}", remote.port());
    let jetstream = outbound.jetstream().await.unwrap();
    jetstream.publish(subject, event.to_string().into()).await.unwrap().await.unwrap();
    outbound.wait_accepted(0, 1, SOON).await.unwrap();
    let lane = format!("{remote}/{wrong}");
    let expected = format!("it has deliveries of actors of partition {own} of 4: they may overtake themselves");
    let (status, page) = readyz(&outbound).await.unwrap();
    let note = named(&page, "notes", "partitions").and_then(|note| note["note"].as_str());
    assert_eq!((status, note), (200, Some(&*format!("{lane}: {expected}"))), "{page}");
    let lanes = http1::get(outbound.worker.admin(), "/lanes").await.unwrap().json();
    assert_eq!(lanes["lanes"][&lane]["note"], expected, "{lanes}");
    // Who is where they belong is nothing to speak of.
    outbound.publish_many(0, &actor, 1).await.unwrap();
    outbound.wait_accepted(0, 2, SOON).await.unwrap();
    let lanes = http1::get(outbound.worker.admin(), "/lanes").await.unwrap().json();
    let right = &lanes["lanes"][format!("{remote}/{own}")];
    assert!(right.is_object() && right["note"] == Value::Null, "{lanes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_reads_no_outboxes_says_so() {
    let outbound = Outbound::with(0).start().await.unwrap();
    let (status, page) = readyz(&outbound).await.unwrap();
    assert_eq!((status, named(&page, "checks", "backfill")), (200, None), "{page}");
    let note = named(&page, "notes", "backfill").map(|note| note["note"].to_string()).unwrap_or_default();
    assert!(note.contains("FED_OUTBOX_URL_TEMPLATE is not set"), "{page}");
}
