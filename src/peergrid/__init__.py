"""peergrid: reinforcement learning in grid-aware local energy markets.

Importing it registers the environments, as strings: what they need is loaded when one is made.
"""

import gymnasium
import pettingzoo

__version__ = "0.1.0"

P2P = "peergrid.envs.p2p_trading"
TRANSACTIVE = "peergrid.envs.transactive"
gymnasium.register(
    "peergrid/CentralTrading-v0",
    entry_point=f"{P2P}.gymnasium:CentralTrading",
    vector_entry_point=f"{P2P}.vector:central_trading",
)
gymnasium.register(
    "peergrid/SoloTrading-v0",
    entry_point=f"{P2P}.gymnasium:SoloTrading",
    vector_entry_point=f"{P2P}.vector:solo_trading",
)
gymnasium.register(
    "peergrid/DsoPricing-v0",
    entry_point=f"{TRANSACTIVE}.gymnasium:DsoPricing",
    vector_entry_point=f"{TRANSACTIVE}.vector:dso_pricing",
)
pettingzoo.register("parallel", "peergrid/p2p_trading-v0", "peergrid.envs.p2p_trading_v0:parallel_env")
pettingzoo.register("aec", "peergrid/p2p_trading-v0", "peergrid.envs.p2p_trading_v0:env")
pettingzoo.register("parallel", "peergrid/transactive-v0", "peergrid.envs.transactive_v0:parallel_env")
pettingzoo.register("aec", "peergrid/transactive-v0", "peergrid.envs.transactive_v0:env")
