"""Every name of TensorRT that the package touches: a new one is added here, and then known to be in all versions."""

from __future__ import annotations

# What a build calls in every version.
BUILD_CALLS = frozenset(
    {
        *("__version__", "ILogger", "ILogger.ERROR", "ILogger.WARNING", "IErrorRecorder", "IProgressMonitor"),
        *("Builder", "Builder.create_network", "Builder.create_builder_config", "Builder.error_recorder"),
        *("Builder.create_optimization_profile", "Builder.build_serialized_network"),
        *("NetworkDefinitionCreationFlag", "INetworkDefinition.num_inputs", "INetworkDefinition.get_input"),
        *("INetworkDefinition.num_outputs", "INetworkDefinition.get_output"),
        *("ITensor.name", "ITensor.dtype", "ITensor.shape"),
        *("OnnxParser", "OnnxParser.parse_from_file", "OnnxParser.num_errors", "OnnxParser.get_error"),
        *("ParserError.node", "ParserError.node_name", "ParserError.node_operator", "ParserError.desc"),
        *("IBuilderConfig.profiling_verbosity", "ProfilingVerbosity.DETAILED"),
        *("IBuilderConfig.max_aux_streams", "IBuilderConfig.builder_optimization_level"),
        *("IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.get_memory_pool_limit"),
        *("MemoryPoolType.WORKSPACE", "IBuilderConfig.progress_monitor"),
        *("IBuilderConfig.add_optimization_profile", "IOptimizationProfile.set_shape"),
        *("BuilderFlag", "IBuilderConfig.flags", "IHostMemory.nbytes"),
    }
)
# What a build calls where it is asked for and there.
BUILD_OPTIONAL = frozenset(
    {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",  # ignored from 11 on, where all networks are
        *("BuilderFlag.VERSION_COMPATIBLE", "IBuilderConfig.set_flag"),
        *("IBuilderConfig.hardware_compatibility_level", "HardwareCompatibilityLevel.AMPERE_PLUS"),
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",  # from 10.9 on
        *("IBuilderConfig.create_timing_cache", "IBuilderConfig.set_timing_cache"),
        *("IBuilderConfig.get_timing_cache", "ITimingCache.serialize"),
        *("IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability"),
        "ComputeCapability",  # RTX only
        # A plan can be inspected only where it can run.
        *("Runtime", "Runtime.deserialize_cuda_engine", "ICudaEngine.create_engine_inspector"),
        "Runtime.engine_host_code_allowed",
        *("EngineInspector.get_engine_information", "LayerInformationFormat.JSON"),
        "ICudaEngine.device_memory_size_v2",
    }
)

# What a run calls in every version, and what it calls where it is asked for and there.
RUN_CALLS = frozenset(
    {
        *("__version__", "ILogger", "ILogger.ERROR", "ILogger.WARNING", "Runtime"),
        "Runtime.deserialize_cuda_engine",
        *("ICudaEngine.num_io_tensors", "ICudaEngine.get_tensor_name", "ICudaEngine.get_tensor_mode"),
        *("ICudaEngine.get_tensor_dtype", "ICudaEngine.get_tensor_shape", "ICudaEngine.get_tensor_location"),
        *("ICudaEngine.get_tensor_format", "ICudaEngine.get_tensor_profile_shape"),
        *("ICudaEngine.create_execution_context", "TensorIOMode.INPUT", "TensorLocation.HOST"),
        *("TensorFormat.LINEAR", "IExecutionContext.set_input_shape", "IExecutionContext.get_tensor_shape"),
        *("IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3"),
    }
)
RUN_OPTIONAL = frozenset(
    {
        "Runtime.engine_host_code_allowed",  # for version-compatible plans, which only full TensorRT builds
        # RTX only
        *("CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "ICudaEngine.create_runtime_config"),
        "IRuntimeConfig.cuda_graph_strategy",
    }
)
