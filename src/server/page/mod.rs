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
    script-src 'sha256-JhUhKyGbWWSywVv+uDcqoYVx7hlaQuT+yfVsfw2NggI='; \
    style-src 'sha256-Zvz91ztMFZTxEeeSNEwizFwC6A17KT5tDV7g1GrVPH0='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
