//! kubectl lameduck: manifests in, findings or manifests out; it never talks to a cluster. docs/design.md has the house.

pub mod cli;
pub mod files;
pub mod inject;
pub mod lint;
pub mod manifest;
pub mod plan;
pub mod report;
pub mod wrap;
pub mod yaml;
