//! Whatever sits between the halves: proxies that nobody set up for this. Each is the back's nginx with one thing worse.

use std::time::Duration;

use fedstream_tests::pipeline::Which;

use crate::SOON;
use crate::proxy::{Changes, Kind};
use crate::site::{SOURCE, Site, pipeline};
use crate::through::{BACKLOG, assert_streamed, depths_of_a_slow_delivery};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_buffering_holds_no_line_back() {
    // Our answer asks for none (`X-Accel-Buffering: no`), and nginx does as it is asked.
    let mut site = backlog_behind(&["proxy_buffering off;", "proxy_request_buffering off;"], "").await;
    assert_streamed(&mut site.pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_upstream_holds_no_line_back() {
    let mut site = backlog_behind(&["proxy_http_version 1.1;", "proxy_set_header Connection \"\";"], "").await;
    assert_streamed(&mut site.pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_compresses_what_it_can_leaves_the_answer_alone() {
    let zealous = "gzip on; gzip_types *; gzip_proxied any; gzip_http_version 1.0; gzip_min_length 0;";
    let mut site = backlog_behind(&["gzip off;"], zealous).await;
    assert_streamed(&mut site.pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_insists_on_buffering_makes_outcomes_come_all_at_once() {
    // Works; and shows that the other tests would see it.
    let mut site = backlog_behind(&["proxy_buffering off;"], "proxy_ignore_headers X-Accel-Buffering;").await;
    let depths = depths_of_a_slow_delivery(&mut site.pipeline).await;
    assert!(depths.len() <= 4, "before, after, and a first batch of one: {depths:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_held_back_too_long_is_given_up_and_the_log_says_so() {
    let insists = "proxy_ignore_headers X-Accel-Buffering;";
    let mut site = backlog_behind(&["proxy_buffering off;"], insists).await;
    // 20 activities take 2 s, and nothing comes before the end.
    site.pipeline.batch_sender.set_env("FED_ANSWER_TIMEOUT", Some("1s"));
    depths_of_a_slow_delivery(&mut site.pipeline).await;
    let log = site.pipeline.batch_sender.log();
    assert!(log.contains("does a proxy hold the answer back?"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_closes_idle_connections_costs_nothing() {
    let mut site = behind(&["keepalive_timeout 75s;"], "keepalive_timeout 100ms;").await;
    site.pipeline.batch_sender.start().await.expect("it starts");
    let mut sender = site.sender(SOURCE);
    for pause_ms in [0, 60, 90, 95, 100, 105, 110, 150, 250] {
        // The pause itself is what is played: shorter than the proxy's patience, about as long, longer.
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        sender.send_many(1).await;
        site.pipeline.settle(SOON).await;
    }
    site.pipeline.settle(SOON).await.assert_clean(9);
    site.pipeline.wait_trimmed(SOON).await.expect("what is settled is purged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_takes_only_small_bodies_gets_smaller_batches() {
    let mut site = backlog_behind(&["client_max_body_size 32m;"], "client_max_body_size 16k;").await;
    // 20 activities of 4 KiB each, as they are.
    site.pipeline.batch_sender.set_env("FED_BATCH_COMPRESSION", Some("none"));
    site.pipeline.batch_sender.start().await.expect("it starts");
    site.pipeline.settle(SOON).await.assert_clean(BACKLOG);
    let log = site.pipeline.batch_sender.log();
    assert!(log.contains("413"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_in_front_of_nothing_is_named_in_the_log() {
    let mut site = behind(&[], "").await;
    site.pipeline.service(Which::BatchReceiver).kill9();
    site.pipeline.batch_sender.start().await.expect("it starts");
    site.sender(SOURCE).send_many(1).await;
    let said = || site.pipeline.batch_sender.log().contains("502 Bad Gateway");
    fedstream_tests::eventually::becomes_true("the log has the proxy's answer", SOON, said).await.unwrap();
    site.pipeline.batch_receiver.start().await.expect("it starts again");
    site.pipeline.settle(SOON).await.assert_clean(1);
}

/// nginx on both sides; at the back without some of its lines, and with others instead.
async fn behind(without: &[&str], instead: &str) -> Site {
    let mut changes: Changes = without.iter().map(|line| ((*line).to_owned(), String::new())).collect();
    changes.push(("location = /batch {".to_owned(), format!("location = /batch {{ {instead}")));
    Site::start(Kind::Nginx, Kind::Nginx, pipeline(), changes).await
}

async fn backlog_behind(without: &[&str], instead: &str) -> Site {
    let site = behind(without, instead).await;
    site.sender(SOURCE).send_many(BACKLOG).await;
    site
}
