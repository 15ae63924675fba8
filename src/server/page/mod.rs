//! The page at `/`: one file without anything from elsewhere, and what it shows as JSON.

mod json;
mod samples;
mod status;

pub use samples::{Sample, Samples, Times, Totals};
pub use status::{history, status};

/// Styles and script stand in the file itself.
pub const PAGE: &str = include_str!("index.html");
pub const HTML: &str = "text/html; charset=utf-8";
pub const JSON: &str = "application/json";

/// What a browser may do with the page: run its own script, and ask this node. The hashes are those of what stands
/// between `<style>` and `</style>`, and between `<script>` and `</script>`; `tests/page_policy.rs` computes them.
pub const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-03VgmkqQQBAlwX2y2izujVg1AZt1Et7pi5m/OVDAMoU='; \
    style-src 'sha256-hgx71mt6zahnjfb9FIeIgLn29CBCclfylylUfufrvNA='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
