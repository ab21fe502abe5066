use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn reporter() -> Reporter {
    Reporter::new("pod", SECOND, Duration::ZERO)
}

#[test]
fn bytes_are_those_of_go() {
    // Fields by hand: number and wire type, then the value.
    assert_eq!(Stat::default().encode(), b"");
    assert_eq!(reporter().before_first_report().encode(), b"\x0a\x03pod");
    let full = Stat {
        pod_name: "pod-1".into(),
        average_concurrent_requests: 1.5,
        average_proxied_concurrent_requests: 0.25,
        request_count: 3.0,
        proxied_request_count: 2.0,
        process_uptime: 12.75,
        timestamp: 300,
    };
    let hex: String = full.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "0a05706f642d3111000000000000f83f19000000000000d03f2100000000000008402900000000000000403100000000008029\
         4038ac02"
    );
    let negative = Stat { timestamp: -1, process_uptime: -0.0, ..Stat::default() };
    assert_eq!(negative.encode(), b"\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
}

#[test]
fn the_longest_pod_name_fits_what_is_read() {
    let stat = Stat {
        pod_name: "p".repeat(253),
        average_concurrent_requests: 1.0,
        average_proxied_concurrent_requests: 1.0,
        request_count: 1.0,
        proxied_request_count: 1.0,
        process_uptime: 1.0,
        timestamp: 0,
    };
    assert!(stat.encode().len() <= ENCODED_MAX);
}

#[test]
fn concurrency_is_integrated_over_time() {
    let mut reporter = reporter();
    reporter.event(Event::In, ms(0));
    reporter.event(Event::ProxiedIn, ms(500));
    reporter.event(Event::Out, ms(750));
    let stat = reporter.report(SECOND);
    // One for half a second, two for a quarter, one for a quarter.
    assert_eq!(stat.average_concurrent_requests, 1.25);
    assert_eq!(stat.average_proxied_concurrent_requests, 0.5);
    assert_eq!((stat.request_count, stat.proxied_request_count), (2.0, 1.0));
    assert_eq!(stat.process_uptime, 1.0);
    assert_eq!(stat.timestamp, 0);

    // What is in flight carries over, counts do not.
    let stat = reporter.report(2 * SECOND);
    assert_eq!((stat.average_concurrent_requests, stat.average_proxied_concurrent_requests), (1.0, 1.0));
    assert_eq!((stat.request_count, stat.proxied_request_count), (0.0, 0.0));
    reporter.event(Event::ProxiedOut, 2 * SECOND);
    assert_eq!(reporter.in_flight(), 0);
    let stat = reporter.report(3 * SECOND);
    assert_eq!(stat, Stat { pod_name: "pod".into(), process_uptime: 3.0, ..Stat::default() });
}

#[test]
fn time_that_goes_backwards_does_not_count() {
    let mut reporter = reporter();
    reporter.event(Event::In, ms(800));
    reporter.event(Event::In, ms(400));
    let stat = reporter.report(SECOND);
    assert!((stat.average_concurrent_requests - 0.4).abs() < 1e-9, "{stat:?}");
    assert_eq!(stat.request_count, 2.0);
    // A report at the moment of the last one has no time to average over.
    assert_eq!(reporter.report(SECOND).average_concurrent_requests, 0.0);
}

#[test]
fn counts_are_per_second_of_the_period() {
    let mut reporter = Reporter::new("pod", 2 * SECOND, SECOND);
    for _ in 0..3 {
        reporter.event(Event::In, SECOND);
        reporter.event(Event::Out, SECOND);
    }
    let stat = reporter.report(3 * SECOND);
    assert_eq!((stat.request_count, stat.process_uptime), (1.5, 2.0));
}

proptest! {
    /// Against the plainest model: the list of requests with begin and end.
    #[test]
    fn agrees_with_the_list_of_requests(
        mut requests in prop::collection::vec((0_u64..3000, 0_u64..3000, any::<bool>()), 0..40),
    ) {
        let mut events = Vec::new();
        for (begin, end, proxied) in &mut requests {
            if begin > end {
                std::mem::swap(begin, end);
            }
            let (arrives, ends) =
                if *proxied { (Event::ProxiedIn, Event::ProxiedOut) } else { (Event::In, Event::Out) };
            events.push((*begin, 0, arrives));
            events.push((*end, 1, ends));
        }
        events.sort_by_key(|(at, order, _)| (*at, *order));
        let mut reporter = reporter();
        for tick in 1..=3_u64 {
            let (from, to) = ((tick - 1) * 1000, tick * 1000);
            for (at, _, event) in events.iter().filter(|(at, _, _)| (from..to).contains(at)) {
                reporter.event(*event, ms(*at));
            }
            let stat = reporter.report(ms(to));
            let overlap = |proxied_only: bool| -> f64 {
                let counted = requests.iter().filter(|(_, _, proxied)| *proxied || !proxied_only);
                counted.map(|(begin, end, _)| (*end.min(&to) as f64 - *begin.max(&from) as f64).max(0.0) / 1000.0).sum()
            };
            prop_assert!((stat.average_concurrent_requests - overlap(false)).abs() < 1e-6);
            prop_assert!((stat.average_proxied_concurrent_requests - overlap(true)).abs() < 1e-6);
            let arrived = requests.iter().filter(|(begin, _, _)| (from..to).contains(begin)).count();
            prop_assert_eq!(stat.request_count, arrived as f64);
        }
    }

    #[test]
    fn any_order_of_events_keeps_the_invariants(
        events in prop::collection::vec((0_u8..5, any::<u32>()), 0..100),
    ) {
        let mut reporter = reporter();
        for (kind, at) in events {
            let at = Duration::from_micros(at.into());
            match kind {
                0 => reporter.event(Event::In, at),
                1 => reporter.event(Event::Out, at),
                2 => reporter.event(Event::ProxiedIn, at),
                3 => reporter.event(Event::ProxiedOut, at),
                _ => {
                    let stat = reporter.report(at);
                    prop_assert!(stat.average_concurrent_requests >= 0.0 && stat.average_concurrent_requests.is_finite());
                    prop_assert!(stat.proxied_request_count <= stat.request_count);
                    prop_assert!(stat.encode().len() <= ENCODED_MAX);
                }
            }
        }
    }
}
