// SPDX-License-Identifier: GPL-2.0

//! The subcommand `dump`.

use crate::device::Access;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::remap::records::Record;
use crate::remap::superblock::Set;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::units::Sector;
use crate::remap::units::Slot;
use crate::remap::units::SpareIndex;
use crate::spares::Spare;
use crate::spares::Spares;
use crate::survey::Survey;
use clap::Args;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::io;
use std::io::BufWriter;
use std::io::Write;
use std::path::PathBuf;

/// Shows the metadata of spares, and changes nothing.
#[derive(Args)]
pub struct Dump {
    /// All spares of a set, or some of them
    #[arg(required = true, value_name = "SPARE")]
    spares: Vec<PathBuf>,

    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,

    /// Show only the blocks that lie at this sector or behind it
    #[arg(long, value_name = "SECTOR", default_value_t = 0)]
    sector: u64,

    /// Show at most so many blocks
    #[arg(long, value_name = "BLOCKS")]
    limit: Option<usize>,

    /// Show what is good of damaged metadata, too
    #[arg(long)]
    force: bool,
}

/// How to show metadata.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// As lines for people.
    Human,
    /// As one JSON object.
    Json,
}

impl Dump {
    /// Does it.
    pub fn run(&self) -> Result<Exit, Failure> {
        let spares = Spares::open(&self.spares, Access::Read)?;
        let survey = Survey::new(&spares, None, false);
        let damaged = survey.exit() == Exit::Damaged;
        let Some(set) = survey
            .set
            .filter(|_| damaged && self.force || survey.usable().is_ok())
        else {
            survey.usable()?;
            return Err(Failure::new("there is no good superblock"));
        };
        let shown = Shown::new(&survey, &set, self);
        let mut output = BufWriter::new(io::stdout().lock());
        let written = match self.format {
            Format::Human => write!(output, "{shown}"),
            Format::Json => serde_json::to_writer_pretty(&mut output, &shown)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(output)),
        };
        match written.and_then(|()| output.flush()) {
            // Who reads only the beginning has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(Failure::new(format!("standard output: {error}"))),
            Ok(()) => {}
        }
        Ok(if damaged { Exit::Damaged } else { Exit::Clean })
    }
}

/// A set as it is shown.
#[derive(Serialize)]
struct Shown {
    uuid: String,
    main_sectors: u64,
    main_id: String,
    block_size: u64,
    created: u32,
    auto: u32,
    scan_interval: u32,
    scan_rate: u32,
    read_retries: u32,
    scan_position: u64,
    scan_passes: u64,
    scan_errors: u64,
    scan_ended: u32,
    relocated: u64,
    relocated_auto: u64,
    removed: u64,
    spares: Vec<ShownSpare>,
    relocations: Vec<Relocation>,
    findings: Vec<String>,
}

/// A spare as it is shown.
#[derive(Serialize)]
struct ShownSpare {
    index: usize,
    /// [`None`] when it is missing.
    device: Option<PathBuf>,
    superblock: Option<ShownSuperblock>,
    slots: u32,
    used: usize,
    retired: usize,
}

/// A superblock as it is shown.
#[derive(Serialize)]
struct ShownSuperblock {
    state: &'static str,
    sequence: u64,
    spare_sectors: u64,
    data_start: u64,
    slot_pages: u32,
    slot_mark: u32,
    witness_pages: u32,
    witness_mark: u32,
}

/// A relocated block as it is shown.
#[derive(Serialize)]
struct Relocation {
    sector: u64,
    sectors: u64,
    spare: usize,
    /// [`None`] when the spare is missing.
    spare_sector: Option<u64>,
    live: String,
    cause: &'static str,
    time: u32,
}

impl Shown {
    fn new(survey: &Survey<'_>, set: &Set, dump: &Dump) -> Self {
        let (options, progress) = (&set.options, &set.progress);
        let lifetime = &survey.contents.lifetime;
        let first = set.block_size.block_of(Sector(dump.sector));
        let blocks = first.map(|first| survey.contents.blocks.range(first..));
        let limit = dump.limit.unwrap_or(usize::MAX);
        Self {
            uuid: set.uuid.to_string(),
            main_sectors: set.main_sectors.0,
            main_id: set.main_id.to_string(),
            block_size: set.block_size.sectors().0,
            created: set.created.0,
            auto: options.automatic.into(),
            scan_interval: options.scan_interval.0,
            scan_rate: options.scan_rate.get(),
            read_retries: options.read_retries.get(),
            scan_position: progress.position.0,
            scan_passes: progress.passes,
            scan_errors: progress.errors,
            scan_ended: progress.ended.0,
            relocated: lifetime.relocated,
            relocated_auto: lifetime.automatic,
            removed: lifetime.removed,
            spares: set
                .spares
                .spares()
                .map(|index| ShownSpare::new(survey, set, index))
                .collect(),
            relocations: blocks
                .into_iter()
                .flatten()
                .take(limit)
                .map(|(_, (slot, record))| Relocation::new(survey, set, *slot, record))
                .collect(),
            findings: survey
                .findings
                .iter()
                .map(|finding| survey.sentence(finding))
                .collect(),
        }
    }
}

impl ShownSpare {
    fn new(survey: &Survey<'_>, set: &Set, index: SpareIndex) -> Self {
        let contents = &survey.contents;
        let spare = survey.spares.get(index);
        let on_it = |slot: &Slot| slot.spare() == index;
        Self {
            index: index.get(),
            device: spare.map(|spare| spare.device.path().to_owned()),
            superblock: spare.and_then(Spare::superblock).map(ShownSuperblock::new),
            slots: set.slots_of[index.get()].0,
            used: contents
                .blocks
                .values()
                .filter(|(slot, _)| on_it(slot))
                .count(),
            retired: contents.retired.iter().filter(|slot| on_it(slot)).count(),
        }
    }
}

impl ShownSuperblock {
    fn new(superblock: &Superblock) -> Self {
        let parts = superblock.layout.parts();
        Self {
            state: match superblock.state {
                State::Initialising => "initialising",
                State::Ready => "ready",
            },
            sequence: superblock.sequence.get(),
            spare_sectors: parts.spare_sectors.0,
            data_start: parts.data_start.0,
            slot_pages: parts.slot_pages.0,
            slot_mark: superblock.slot_mark.0,
            witness_pages: parts.witness_pages.0,
            witness_mark: superblock.witness_mark.0,
        }
    }
}

impl Relocation {
    fn new(survey: &Survey<'_>, set: &Set, slot: Slot, record: &Record) -> Self {
        let spare = survey.spares.get(slot.spare());
        let superblock = spare.and_then(Spare::superblock);
        let place = superblock.and_then(|superblock| superblock.layout.data(slot.number()));
        Self {
            sector: set.block_size.first_sector(record.block).0,
            sectors: set.block_size.sectors_of(record.block, set.main_sectors).0,
            spare: slot.spare().get(),
            spare_sector: place.map(|place| place.0),
            live: format!("{:x}", record.live.0),
            cause: record.cause.name(),
            time: record.time.0,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "set {}", self.uuid)?;
        writeln!(f, "  main_sectors {}", self.main_sectors)?;
        writeln!(
            f,
            "  main_id {}",
            or_dash((!self.main_id.is_empty()).then_some(&self.main_id))
        )?;
        writeln!(f, "  block_size {}", self.block_size)?;
        writeln!(f, "  created {}", self.created)?;
        writeln!(
            f,
            "  auto {} scan_interval {} scan_rate {} read_retries {}",
            self.auto, self.scan_interval, self.scan_rate, self.read_retries
        )?;
        writeln!(
            f,
            "  scan_position {} scan_passes {} scan_errors {} scan_ended {}",
            self.scan_position, self.scan_passes, self.scan_errors, self.scan_ended
        )?;
        writeln!(
            f,
            "  relocated {} relocated_auto {} removed {}",
            self.relocated, self.relocated_auto, self.removed
        )?;
        for spare in &self.spares {
            let device = spare.device.as_ref().map(|device| device.display());
            writeln!(f, "spare {} {}", spare.index, or_dash(device))?;
            writeln!(
                f,
                "  slots {} used {} retired {}",
                spare.slots, spare.used, spare.retired
            )?;
            if let Some(it) = &spare.superblock {
                writeln!(f, "  state {} sequence {}", it.state, it.sequence)?;
                writeln!(
                    f,
                    "  spare_sectors {} data_start {}",
                    it.spare_sectors, it.data_start
                )?;
                writeln!(
                    f,
                    "  slot_pages {} slot_mark {}",
                    it.slot_pages, it.slot_mark
                )?;
                writeln!(
                    f,
                    "  witness_pages {} witness_mark {}",
                    it.witness_pages, it.witness_mark
                )?;
            }
        }
        for finding in &self.findings {
            writeln!(f, "finding {finding}")?;
        }
        writeln!(f, "relocations {}", self.relocations.len())?;
        for it in &self.relocations {
            let place = or_dash(it.spare_sector);
            writeln!(
                f,
                "{} {} {} {place} {} {} {}",
                it.sector, it.sectors, it.spare, it.live, it.cause, it.time
            )?;
        }
        Ok(())
    }
}

/// A value, or the dash that stands for none.
fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
