//! `/metrics` of a process, with the real registry: there is one for each process, so this file has one test.

use fedstream_service::config::{Environment, common, load_from};
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::{self, KeyValue, table};
use fedstream_service::{Service, config::Variable};

/// More lanes than the SDK's own limit of 2000 series has room for with five outcomes each.
const LANES: usize = 1000;

static COMMON: [Variable; common::COUNT] = common::variables("127.0.0.1:9090");
static SERVICE: Service = Service { name: "sample", about: "", version: "1.2.3", variables: &[&COMMON] };

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_the_names_of_the_table_and_room_for_every_lane_that_was_asked_for() {
    assert_eq!(metrics::text(), None, "nothing before the start");
    table::LANE_OUTCOMES.definition(); // a definition needs no start
    let lanes = LANES.to_string();
    let environment = Environment::from_pairs(&[("FED_METRIC_LANES", lanes.as_str())]);
    let config: common::CommonConfig = load_from(&SERVICE, &environment).unwrap();
    let running = metrics::init(&SERVICE, &config.telemetry).unwrap();

    for number in 0..LANES + 2 {
        let lane = NAMES.name(&format!("a.example/{number}.example"));
        for outcome in table::OUTCOMES {
            table::LANE_OUTCOMES.add(1, &[lane.clone(), KeyValue::new("outcome", *outcome)]);
        }
    }
    table::LANE_LATENCY.record(0.02, &[NAMES.other()]);
    table::BATCH_SIZE.record(300.0, &[]);
    table::LANE_TROUBLE.observe(|trouble| trouble.is(1.0, &[NAMES.other()]));
    table::FRONT_INFLIGHT.observe(|held| held.is(7.0, &[]));
    let page = metrics::text().unwrap();
    let has = |line: &str| assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");

    has("fedstream_lane_outcomes_total{lane=\"a.example/0.example\",outcome=\"delivered\"} 1");
    has("fedstream_lane_outcomes_total{lane=\"other\",outcome=\"delivered\"} 2");
    assert_eq!(page.matches("outcome=\"delivered\"").count(), LANES + 1);
    assert!(!page.contains("overflow"), "the SDK's own limit is never reached");
    has("fedstream_lane_latency_seconds_bucket{lane=\"other\",le=\"0.025\"} 1");
    has("fedstream_lane_latency_seconds_bucket{lane=\"other\",le=\"3600\"} 1");
    has("fedstream_batch_size_bytes_count 1");
    has("fedstream_lane_trouble{lane=\"other\"} 1");
    has("fedstream_front_inflight_bytes 7");
    has("fedstream_build{version=\"1.2.3\"} 1");
    has("fedstream_telemetry_dropped_total{reason=\"export_failed\",signal=\"metrics\"} 0");
    has("fedstream_telemetry_dropped_total{reason=\"queue_full\",signal=\"traces\"} 0");
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let known = table::ALL.iter().any(|definition| definition.prometheus_name() == name);
        assert!(known || name == "target_info", "{name} is in no table");
    }
    running.flush(std::time::Duration::from_secs(5));
}
