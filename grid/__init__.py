"""The network and its operator: feeders, power flow, optimal power flow, prices."""

from peergrid.grid.catalogue import feeder_from_tables, feeder_names, feeder_source, load_feeder, save_feeder
from peergrid.grid.dso import Dso, DsoQuery, DsoResponse, DsoStatus, Generators, OpfDso, Penalty, UncheckedDso
from peergrid.grid.feeder import Feeder
from peergrid.grid.pandapower import feeder_from_pandapower
from peergrid.grid.power_flow import PowerFlow, PowerFlowStatus, solve_power_flow

__all__ = [
    "Dso",
    "DsoQuery",
    "DsoResponse",
    "DsoStatus",
    "Feeder",
    "Generators",
    "OpfDso",
    "Penalty",
    "PowerFlow",
    "PowerFlowStatus",
    "UncheckedDso",
    "feeder_from_pandapower",
    "feeder_from_tables",
    "feeder_names",
    "feeder_source",
    "load_feeder",
    "save_feeder",
    "solve_power_flow",
]
