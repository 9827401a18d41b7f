"""Going and looking: a Target in, an Outcome out. A kind of probe is a file and a line here."""

from monitors.probing.http import HttpProbe
from monitors.probing.probe import Probe

PROBES: dict[str, type[Probe]] = {
    "http": HttpProbe,
}
