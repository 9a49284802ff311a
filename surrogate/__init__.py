"""A transformer that predicts the DSO's answers: data set, training, and the predictor that microgrids ask.

    playing     questions    what is asked and answered, in rows
                model        the network, from tensors to tensors
                checkpoint   a trained model as a file
                predictor    what environments ask
    making      sampling     which questions are drawn          samples      questions with exact answers
                dataset      how samples are kept               market       questions as they come up in the market
                training     how weights are found              calibration  how wide intervals are
                settings     what `conf/surrogate.yaml` sets    report/      how right the predictions are
    commands    train, evaluate, describe
    opf_layer   the operator itself as a layer of a network

Modules for playing import none of those for making.
"""
