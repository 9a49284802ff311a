"""The kinds of devices that a scenario may name under `devices`, each with the module and class that hold it."""

DEVICES: dict[str, str] = {
    "vehicle": "peergrid.envs.devices.vehicle:Vehicle",
    "heat_pump": "peergrid.envs.devices.heat_pump:HeatPump",
}
