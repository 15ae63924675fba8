//! Times for people to read.

use std::time::Duration;

/// Median, best and worst, and then all of them.
pub fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what}: median {:.0} ms, best {:.0}, worst {:.0} (of {})",
        milliseconds(times[times.len() / 2]),
        milliseconds(times[0]),
        milliseconds(times[times.len() - 1]),
        times.len()
    );
    let all: Vec<String> = times.iter().map(|time| format!("{:.0}", milliseconds(*time))).collect();
    println!("  all, in ms: {}", all.join(" "));
}
