"""The names that swappable parts go by, each with the "module:attribute" that is imported when it is asked for."""

P2P, TRANSACTIVE = "peergrid.envs.p2p_trading", "peergrid.envs.transactive"
POLICIES_OF_P2P, POLICIES_OF_TRANSACTIVE = "peergrid.baselines.policies", "peergrid.baselines.transactive_policies"

MECHANISMS = {name: f"{P2P}.mechanisms:{name}" for name in ("call_auction", "mid_market_rate", "bilateral", "direct")}
DSOS = {"opf": "peergrid.envs.scenario:build_dso", "unchecked": "peergrid.envs.scenario:build_unchecked_dso"}
PREDICTORS = {
    "none": f"{P2P}.predictors:no_prediction",
    "transformer": "peergrid.surrogate.predictor:transformer",
    "oracle": f"{P2P}.predictors:oracle",
}
POLICIES = {
    "random": f"{POLICIES_OF_P2P}:RandomPolicy",
    "no_trade": f"{POLICIES_OF_P2P}:NoTrade",
    "truthful": f"{POLICIES_OF_P2P}:Truthful",
    "planned": f"{POLICIES_OF_P2P}:Planned",
    "receding": f"{POLICIES_OF_P2P}:Receding",
    "selfish": f"{POLICIES_OF_P2P}:Selfish",
    "adaptive": f"{POLICIES_OF_P2P}:Adaptive",
    "zero_intelligence": f"{POLICIES_OF_P2P}:ZeroIntelligence",
    "optimal": f"{POLICIES_OF_P2P}:Optimal",
}
TRANSACTIVE_POLICIES = {
    "optimising": f"{POLICIES_OF_TRANSACTIVE}:Optimising",
    "myopic": f"{POLICIES_OF_TRANSACTIVE}:Myopic",
    "scheduled": f"{POLICIES_OF_TRANSACTIVE}:Scheduled",
}
RULES = {name: f"{TRANSACTIVE}.signal:{name}" for name in ("halving", "fixed", "proportional", "none")}
