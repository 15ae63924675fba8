//! Prometheus's text format, version 0.0.4: what a scraper reads.

use std::fmt::{self, Display, Write};
use std::ops::AddAssign;
use std::time::Duration;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What may have a fraction, in billionths, as seconds are measured. The text of an `f64` would take 18 KB of the
/// server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(u128);

impl Decimal {
    const ONE: u128 = 1_000_000_000;

    pub const fn whole(number: u64) -> Self {
        Decimal(number as u128 * Self::ONE)
    }

    /// Of a time, in seconds.
    pub const fn seconds(time: Duration) -> Self {
        Decimal(time.as_nanos())
    }
}

impl AddAssign for Decimal {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, billionths) = (self.0 / Self::ONE, self.0 % Self::ONE);
        let digits = format!("{whole}.{billionths:09}");
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What has been counted, in buckets: upper bounds, ascending, with the number of values up to each that
/// are above the one before.
#[derive(Debug, Clone, Copy)]
pub struct Buckets<'a> {
    pub bounds: &'a [Decimal],
    pub counts: &'a [u64],
    /// Of all values, those above the last bound included.
    pub count: u64,
    pub sum: Decimal,
}

impl Exposition {
    /// Something that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, help, "gauge", &value);
    }

    /// Something that only goes up while the process lives; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.one(name, help, "counter", &value);
    }

    /// A gauge for each value of some labels.
    pub fn gauges<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        let mut has_head = false;
        for (of, value) in values {
            if !std::mem::replace(&mut has_head, true) {
                self.head(name, help, "gauge");
            }
            self.sample(name, &[(label, of)], &value);
        }
    }

    /// A counter for each value of a label.
    pub fn counters<'a, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        self.head(name, help, "counter");
        for (of, value) in values {
            self.sample(name, &[(label, of)], &value);
        }
    }

    /// A gauge that is always 1, and says something by its labels.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.head(name, help, "gauge");
        self.sample(name, labels, &1);
    }

    pub fn histogram(&mut self, name: &str, help: &str, buckets: Buckets<'_>) {
        self.head(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in buckets.bounds.iter().zip(buckets.counts) {
            below += count;
            self.sample(&bucket, &[("le", &bound.to_string())], &below);
        }
        self.sample(&bucket, &[("le", "+Inf")], &buckets.count);
        self.sample(&format!("{name}_sum"), &[], &buckets.sum);
        self.sample(&format!("{name}_count"), &[], &buckets.count);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    #[inline(never)]
    fn one(&mut self, name: &str, help: &str, kind: &str, value: &dyn Display) {
        self.head(name, help, kind);
        self.sample(name, &[], value);
    }

    #[inline(never)]
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    #[inline(never)]
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &dyn Display) {
        self.text.push_str(name);
        for (at, (label, of)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{of}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}
