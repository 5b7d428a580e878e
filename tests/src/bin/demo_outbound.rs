//! `make demo-outbound`: what an application publishes, on its way to twelve remotes of which some are dead, slow, busy or gone,
//! through a `kill -9` of the worker; and a history for a new follower.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::outbound::{Outbound, Outboxes};

const REMOTES: usize = 12;
const DEAD: usize = 0;
const SLOW: usize = 1;
const BUSY: usize = 2;
const GONE: usize = 3;
/// The well ones; the last of them gets the history.
const WELL: std::ops::Range<usize> = 4..REMOTES;
const FOLLOWER: usize = REMOTES - 1;

const ACTORS: usize = 3;
const EACH: usize = 20;
const HISTORY: usize = 100;

/// A small instance's.
const SERVICE_TIME: Duration = Duration::from_millis(20);
const SLOW_TIME: Duration = Duration::from_millis(400);

/// All of it takes some 20 s.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(demo())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers whether everything was as promised.
async fn demo() -> anyhow::Result<bool> {
    println!("starting a broker, a delivery-worker, an application with outboxes, and {REMOTES} remotes that verify");
    let outboxes = Outboxes::start(HISTORY).await?;
    let outbound = Outbound::with(REMOTES).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template());
    let mut outbound = outbound.env("FED_BACKFILL_PAUSE", "100ms").start().await?;
    for remote in &outbound.remotes {
        remote.set_service_time(SERVICE_TIME);
    }
    outbound.remotes[DEAD].go_down().await;
    outbound.remotes[SLOW].set_service_time(SLOW_TIME);
    outbound.remotes[BUSY].behave(Behaviour::busy(429, Some(2)));
    outbound.remotes[GONE].behave(Behaviour::rejects(410, "gone"));

    println!("{ACTORS} actors publish {EACH} activities each to every remote; one remote gets a history of {HISTORY}");
    let began = Instant::now();
    let actors: Vec<String> = (1..=ACTORS).map(|number| outbound.actor(number)).collect::<Result<_, _>>()?;
    let follower = outbound.remotes[FOLLOWER].addr().to_string();
    let publishing = actors.iter().map(|actor| async {
        for remote in 0..REMOTES {
            outbound.publish_many(remote, actor, EACH).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(publishing).await?;
    let newcomer = outbound.actor(ACTORS + 1)?; // who has published nothing but the history
    outbound.sent.enter(&follower, &newcomer, Outboxes::history(&newcomer, HISTORY));
    outbound.request_backfill(FOLLOWER, &newcomer).await?;
    println!("  published, {:.1} s", began.elapsed().as_secs_f64());

    let not_purged = outbound.kill_worker().await?;
    println!("  kill -9 of the worker, {:.1} s; done and not purged yet: {not_purged}", began.elapsed().as_secs_f64());
    outbound.worker.start().await?;
    let live = ACTORS * EACH;
    let well_have = |outbound: &Outbound| WELL.map(|remote| outbound.remotes[remote].accepted()).sum::<usize>();
    becomes_true("the well ones have everything", PATIENCE, || well_have(&outbound) >= WELL.len() * live + HISTORY)
        .await?;
    println!("  the {} well remotes have everything, {:.1} s", WELL.len(), began.elapsed().as_secs_f64());
    println!("  the dead one has {}, the busy one {}", accepted(&outbound, DEAD), accepted(&outbound, BUSY));

    outbound.remotes[DEAD].come_up().await?;
    outbound.remotes[BUSY].behave_well();
    println!("  the dead one is back, the busy one is not busy any more");
    outbound.wait_empty("FED_OUTBOX", PATIENCE).await?;
    outbound.wait_empty("FED_BACKFILL", PATIENCE).await?;
    println!("  everything has its outcome, {:.1} s\n", began.elapsed().as_secs_f64());
    print(&outbound).await
}

fn accepted(outbound: &Outbound, remote: usize) -> usize {
    outbound.remotes[remote].accepted()
}

async fn print(outbound: &Outbound) -> anyhow::Result<bool> {
    for (number, remote) in outbound.remotes.iter().enumerate() {
        let kind = match number {
            DEAD => "dead for a while",
            SLOW => "slow",
            BUSY => "busy (429)",
            GONE => "gone (410)",
            FOLLOWER => "well, with a new follower",
            _ => "well",
        };
        println!("  {kind:<26} took {:>4} of {:>4} requests", remote.accepted(), remote.arrivals());
    }
    let verdict = outbound.verdict();
    let (parked, told) = (outbound.depth("FED_PARKED").await, outbound.depth("FED_EVENTS").await);
    let refused = ACTORS * EACH;
    println!("\n  published and in histories {:>5}", verdict.stored);
    println!("  delivered or refused       {:>5}", verdict.settled);
    println!("  parked, and told of        {:>5} / {}", parked.unwrap_or(0), told.unwrap_or(0));
    println!("  lost                       {:>5}", verdict.lost.len());
    println!("  out of order               {:>5}", verdict.out_of_order.len());
    println!("  signature failures         {:>5}", verdict.unverified.len());
    println!("  repeats, by the kill -9    {:>5}", verdict.repeats);
    let whole = verdict.lost.is_empty() && verdict.out_of_order.is_empty() && verdict.unverified.is_empty();
    let all =
        whole && verdict.settled == REMOTES * ACTORS * EACH + HISTORY && [parked, told] == [Some(refused as u64); 2];
    if !all {
        eprintln!("\nthis is not as promised:\n{verdict:?}\n{}", outbound.worker.log_tail());
    }
    Ok(all)
}
